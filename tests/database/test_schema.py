"""The migrations can run again on a schema that is up to date."""

from infra.database import migrate
from tests.database.conftest import Environment


def test_migrating_again_changes_nothing(environment: Environment) -> None:
    consumer = environment.consumer()
    migrate.upgrade(environment.url)
    assert environment.version(consumer)
