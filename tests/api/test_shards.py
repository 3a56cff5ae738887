"""An index with five shards: lists, cursors, ranking and `matchedOn` pass the tests of an index with one shard."""

from collections.abc import Iterator

import pytest

from infra.local.servers import LocalServers
from tests.api.test_list_names import (  # noqa: F401 (tests and their fixture)
    named,
    test_equal_names_are_ordered_by_id_and_nulls_are_last,
    test_names_are_sorted_by_the_root_collation,
)
from tests.api.test_list_properties import crowd, test_any_list_equals_sql_however_it_is_paged  # noqa: F401
from tests.api.test_matched_on import (  # noqa: F401
    matched,
    test_explain_changes_no_rows_order_or_cursors,
    test_match_reports_field_and_kind,
)
from tests.api.test_ranking import (  # noqa: F401
    test_exact_email_phone_or_external_id_ranks_first,
    test_paging_a_search_returns_each_hit_once,
    test_tiers_rank_independently_of_creation_order,
    test_ties_rank_by_last_order_then_by_creation,
)
from tests.service import Service, new_service


@pytest.fixture(scope="module")
def service(servers: LocalServers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with new_service(servers, tmp_path_factory.mktemp("service"), {"INDEX_SHARDS": "5"}) as running:
        yield running
