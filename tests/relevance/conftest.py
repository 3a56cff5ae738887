"""The golden consumers among 100,000 others, and copies of the golden consumers in the test environment."""

from collections.abc import Iterator

import pytest

from tests.relevance.bulk_load import assert_complete, load
from tests.relevance.generated_consumers import COUNT, generated_consumers
from tests.relevance.golden import golden_consumers, twins
from tests.service import Account, Service, new_account


@pytest.fixture(scope="session")
def loaded_account(service: Service) -> Iterator[Account]:
    """An account with more than 100,000 consumers."""
    golden = golden_consumers()
    with new_account(service) as account:
        load(account.database, account.live_environment, [*golden, *generated_consumers(golden)])
        assert_complete(account.database, account.live_environment, len(golden) + COUNT)
        load(account.database, account.test_environment, twins())
        assert_complete(account.database, account.test_environment, len(golden))
        yield account
