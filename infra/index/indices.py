"""The indices of this service in OpenSearch, an index for each generation: list, create, switch reads, delete."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from opensearchpy import OpenSearch
from opensearchpy.exceptions import ConnectionError as NoAnswer
from opensearchpy.exceptions import TransportError

from infra.errors import ExplainedError
from infra.index import mapping, naming

NOT_FOUND = 404
INSTALLATION = "installation"
"""Key of a mapping's `_meta`: the id of the installation that owns the index."""


class SearchError(ExplainedError):
    """OpenSearch cannot be used; the message is a line for the operator."""


class Index(NamedTuple):
    """An index, as reported by OpenSearch."""

    uuid: str
    """Unique across all names. An index restored from a snapshot has a new UUID."""
    aliases: frozenset[str]
    replicas: int | None = None
    """None: as many as the cluster has room for."""
    meta: Mapping[str, Any] = MappingProxyType({})
    """The mapping's `_meta`."""

    @property
    def installation(self) -> str | None:
        """The installation that owns the index; None if the index was made before owners were recorded."""
        return self.meta.get(INSTALLATION)


class SeqNos(NamedTuple):
    """Sequence numbers of a shard's operations; -1 without any operation."""

    max_seq_no: int
    global_checkpoint: int
    """Operations up to this number are on disk in every copy of the shard."""


def existing(client: OpenSearch, prefix: str) -> dict[str, Index]:
    """List all indices of this service by name, closed indices included.

    Raises:
        OpenSearchException: OpenSearch does not answer.
    """
    fields = ("uuid", "history", "number_of_replicas", "auto_expand_replicas")
    paths = ",".join(["*.aliases", "*.mappings._meta", *(f"*.settings.index.{field}" for field in fields)])
    params = {"expand_wildcards": "all", "filter_path": paths}
    answer: dict[str, Any] = client.indices.get(index=f"{prefix}-0*", params=params)
    return {
        name: Index(
            _uuid(index["settings"]["index"]),
            frozenset(index.get("aliases", ())),
            _replicas(index["settings"]["index"]),
            index.get("mappings", {}).get("_meta", {}),
        )
        for name, index in answer.items()
    }


def seq_nos(client: OpenSearch, prefix: str) -> dict[str, dict[int, SeqNos]]:
    """Read the sequence numbers of this service's shards with a started primary, by index name and number of the shard.

    Raises:
        OpenSearchException: OpenSearch does not answer.
        SearchError: a node did not answer for its shards.
    """
    fields = ",".join(f"indices.*.shards.*.{field}" for field in ("routing.primary", "routing.state", "seq_no"))
    params = {"level": "shards", "filter_path": f"_shards.failed,{fields}"}
    answer: Any = client.indices.stats(index=f"{prefix}-0*", metric="docs", params=params)
    if failed := answer["_shards"]["failed"]:
        raise SearchError(f"the positions of {failed} shards are unknown, because their nodes did not answer")
    return {
        name: {
            int(number): SeqNos(copy["seq_no"]["max_seq_no"], copy["seq_no"]["global_checkpoint"])
            for number, copies in index["shards"].items()
            for copy in copies
            if copy["routing"] == {"primary": True, "state": "STARTED"}
        }
        for name, index in answer.get("indices", {}).items()
    }


def create(
    client: OpenSearch, name: str, owner: str | None = None, *, shards: int = 1, replicas: int | None = None
) -> None:
    """Create an index with the declared mapping and settings, and with the write alias.

    Args:
        client: with decoded answers.
        name: of the index.
        owner: the installation.
        shards: number of primary shards.
        replicas: as INDEX_REPLICAS.

    Raises:
        OpenSearchException: OpenSearch does not answer.
        SearchError: OpenSearch refuses the index; the message has OpenSearch's reason.
    """
    body = mapping.index_body(shards, replicas) | {"aliases": {naming.write_alias(name): {}}}
    if owner:
        meta = {"_meta": mapping.MAPPING["_meta"] | {INSTALLATION: owner}}
        body = body | {"mappings": body["mappings"] | meta}
    try:
        client.indices.create(index=name, body=body)
    except TransportError as error:
        if isinstance(error, NoAnswer):
            raise
        raise SearchError(f"OpenSearch refuses to create {name}: {_reason(error)}") from error


def set_replicas(client: OpenSearch, name: str, replicas: int) -> None:
    """Change the number of replicas of an index.

    Raises:
        OpenSearchException: the number is unchanged.
    """
    client.indices.put_settings(index=name, body=mapping.replica_settings(replicas))


def switch_reads(client: OpenSearch, prefix: str, name: str) -> None:
    """Point the read alias at an index alone, in an atomic step.

    Raises:
        OpenSearchException, SearchError: reads may use this index or the previous index.
    """
    alias = naming.read_alias(prefix)
    actions = [
        {"remove": {"index": "*", "alias": alias, "must_exist": False}},
        {"add": {"index": name, "alias": alias, "filter": {"term": {"deleted": False}}}},
    ]
    answer = client.indices.update_aliases(body={"actions": actions})
    if not answer.get("acknowledged") or answer.get("errors"):
        raise SearchError(f"OpenSearch did not acknowledge the switch of reads to {name}")


def delete(client: OpenSearch, name: str) -> None:
    """Delete an index, if present.

    Raises:
        OpenSearchException, SearchError: the index may still exist.
    """
    answer = client.indices.delete(index=name, params={"ignore": NOT_FOUND})
    if not answer.get("acknowledged") and answer.get("status") != NOT_FOUND:
        raise SearchError(f"OpenSearch did not acknowledge the deletion of {name}")


def _reason(error: TransportError) -> str:
    """Return type and reason of an error about an index: no personal data, and a single line."""
    details = error.info.get("error", {}) if isinstance(error.info, dict) else {}
    reason = details.get("reason", "") if isinstance(details, dict) else ""
    return f"{error.error}: {' '.join(str(reason).split())}".rstrip(": ")


def _uuid(settings: dict[str, Any]) -> str:
    """The UUIDs of the index and of the history: a restore into a closed index changes only the history's UUID."""
    return " ".join([settings["uuid"], *settings.get("history", {}).values()])


def _replicas(settings: dict[str, Any]) -> int | None:
    is_automatic = settings.get("auto_expand_replicas", "false") != "false"
    return None if is_automatic else int(settings["number_of_replicas"])
