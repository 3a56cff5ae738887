"""The golden consumers in their crowd, and twins of them alone in another environment."""

from collections.abc import Iterator

import pytest

from tests.relevance.crowd import COUNT, crowd
from tests.relevance.golden import sought, twins
from tests.relevance.loading import assert_complete, load
from tests.service import Account, Service, new_account


@pytest.fixture(scope="session")
def crowded(service: Service) -> Iterator[Account]:
    """An account with more than 100,000 consumers."""
    golden = sought()
    with new_account(service) as account:
        load(account.database, account.live_environment, [*golden, *crowd(golden)])
        assert_complete(account.database, account.live_environment, len(golden) + COUNT)
        load(account.database, account.test_environment, twins())
        assert_complete(account.database, account.test_environment, len(golden))
        yield account
