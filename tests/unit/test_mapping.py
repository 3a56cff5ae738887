"""Settings and mapping of a new index."""

import pytest

from infra.index import mapping


@pytest.mark.parametrize(("shards", "of_environment"), [(1, 1), (2, 1), (3, 2), (5, 2), (10, 3), (100, 10)])
def test_environment_has_the_square_root_of_the_shards(shards: int, of_environment: int) -> None:
    assert mapping.shards_of_environment(shards) == of_environment


def test_shards_of_an_environment_are_fewer_than_all() -> None:
    """OpenSearch refuses an index with `routing_partition_size` equal to the shards."""
    assert all(1 <= mapping.shards_of_environment(shards) < shards for shards in range(2, 1025))


def test_index_with_one_shard_accepts_documents_without_routing() -> None:
    body = mapping.index_body(1, None)
    assert "_routing" not in body["mappings"]
    assert "routing_partition_size" not in body["settings"]
    assert body["settings"]["auto_expand_replicas"] == "0-1"


def test_index_with_shards_and_replicas_has_the_settings() -> None:
    body = mapping.index_body(5, 2)
    assert body["mappings"]["_routing"] == {"required": True}
    settings = body["settings"]
    assert (settings["number_of_shards"], settings["routing_partition_size"]) == (5, 2)
    assert (settings["number_of_replicas"], settings["auto_expand_replicas"]) == (2, False)


def test_refresh_does_not_wait_for_merges() -> None:
    assert mapping.index_body(1, None)["settings"]["merge_on_flush.enabled"] is False
