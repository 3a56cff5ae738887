"""Generations: the index that is read, and the rows that say so.

A change of a generation's state takes `BARRIER` exclusively; every drain holds it shared while it writes.
"""

import threading
from collections.abc import Container
from typing import Any, NamedTuple

import sqlalchemy as sa
import structlog
from opensearchpy import OpenSearch
from opensearchpy.exceptions import OpenSearchException, TransportError
from sqlalchemy.exc import DBAPIError

from infra import logs
from infra.database.engine import open_engine
from infra.index import mapping, naming
from infra.index.client import open_client
from infra.settings import Settings

log = structlog.get_logger()

BARRIER = 0x67656E73

EXCLUSIVELY = sa.text("SELECT pg_advisory_xact_lock(:lock)")
LIVE = sa.text("SELECT id, index_name, mapping_digest, index_uuid FROM generations WHERE state = 'live'")
NAMES = sa.text("SELECT index_name FROM generations")
ADD = sa.text("""
    INSERT INTO generations (index_name, state, phase, document_version, mapping_digest, fields, index_uuid, live_at)
    VALUES (:index_name, 'live', 'done', :document_version, :mapping_digest, :fields, :index_uuid, present())""")
KNOW = sa.text("UPDATE generations SET index_uuid = :uuid WHERE id = :id AND index_uuid IS NULL")
NOT_FOUND = 404

DECLARED = {
    "document_version": mapping.DOCUMENT_VERSION,
    "mapping_digest": mapping.MAPPING_DIGEST,
    "fields": sorted(mapping.MAPPING["properties"]),
}
"""What a generation's row says of an index made by this code."""


class SearchError(Exception):
    """OpenSearch cannot be used; the message is one line for the person who needs it."""


class Index(NamedTuple):
    """An index as OpenSearch has it."""

    uuid: str
    """Of no other index, whatever its name, nor of this one after it was restored from a snapshot."""
    aliases: frozenset[str]


class Position(NamedTuple):
    """How far the operations of an index go, by their numbers; -1: there are none."""

    highest: int
    kept: int
    """Up to here all its copies have them on disk."""


def ensure(settings: Settings) -> bool:
    """Create the first generation, unless there is one. Safe at every start, by many processes at once.

    Tells whether the live one is as this code declares it. If not, all goes on with the fields that it has; a rebuild
    gives it the others, and is for somebody to ask for.

    Raises:
        SearchError: OpenSearch cannot be used; one line for the person who started this.
    """
    engine = open_engine(settings)
    client = open_client(settings)
    try:
        with engine.begin() as connection:
            connection.execute(EXCLUSIVELY, {"lock": BARRIER})
            if (live := connection.execute(LIVE).one_or_none()) is None:
                _create_first(connection, client, settings.index_prefix)
                return True
            if live.index_uuid is None and (found := look(client, settings.index_prefix).get(live.index_name)):
                connection.execute(KNOW, {"id": live.id, "uuid": found.uuid})
            return _is_as_declared(live)
    except OpenSearchException as error:
        # Not the address: it may hold a password.
        raise SearchError(f"OpenSearch (OPENSEARCH_URL) cannot be used: {_line(error)}") from error
    finally:
        engine.dispose()
        client.close()


def warn_if_mapping_differs(settings: Settings) -> None:
    """Say in the log what to do if the live index is not as this code declares it, in a thread of its own: no process
    waits for that, or fails for it, when it starts.
    """

    def tell() -> None:
        engine = open_engine(settings)
        try:
            with engine.connect() as connection:
                if live := connection.execute(LIVE).one_or_none():
                    _is_as_declared(live)
        except DBAPIError as error:
            log.warning("mapping_unknown", reason=logs.error_kind(error))
        finally:
            engine.dispose()

    threading.Thread(target=tell, name="mapping", daemon=True).start()


def _is_as_declared(live: sa.Row[Any]) -> bool:
    if differs := live.mapping_digest != mapping.MAPPING_DIGEST:
        log.warning("mapping_differs", index=live.index_name, advice="consumers index rebuild")
    return not differs


def look(client: OpenSearch, prefix: str) -> dict[str, Index]:
    """All indices of this service, by name.

    Raises:
        OpenSearchException: it does not tell.
    """
    params = {"expand_wildcards": "all", "filter_path": "*.aliases,*.settings.index.uuid,*.settings.index.history"}
    found: dict[str, Any] = client.indices.get(index=f"{prefix}-0*", params=params)
    return {
        name: Index(_identity(index["settings"]["index"]), frozenset(index.get("aliases", ())))
        for name, index in found.items()
    }


def positions(client: OpenSearch, prefix: str) -> dict[str, Position]:
    """Of the indices of this service whose primary shard is at work, by name.

    Raises:
        OpenSearchException: it does not tell.
    """
    fields = ",".join(f"indices.*.shards.*.{field}" for field in ("routing.primary", "routing.state", "seq_no"))
    params = {"level": "shards", "filter_path": fields}
    answer: Any = client.indices.stats(index=f"{prefix}-0*", metric="docs", params=params)
    found = {}
    for name, index in answer.get("indices", {}).items():
        for copy in index["shards"].get("0", ()):
            if copy["routing"] == {"primary": True, "state": "STARTED"}:
                found[name] = Position(copy["seq_no"]["max_seq_no"], copy["seq_no"]["global_checkpoint"])
    return found


def _identity(settings: dict[str, Any]) -> str:
    """A closed index into which a snapshot was restored keeps its UUID, but its history is another."""
    return " ".join([settings["uuid"], *settings.get("history", {}).values()])


def free_name(connection: sa.Connection, taken: Container[str], prefix: str) -> str:
    """The next name that neither a generation has had nor an index has."""
    known = set(connection.execute(NAMES).scalars())
    number = len(known) + 1
    while (name := naming.index_name(prefix, number)) in known or name in taken:
        number += 1
    return name


def create(client: OpenSearch, name: str) -> None:
    """Make an index as declared, with the alias that it is written by.

    Raises:
        OpenSearchException: it cannot be made, or is there already.
    """
    body = {
        "settings": mapping.INDEX_SETTINGS,
        "mappings": mapping.MAPPING,
        "aliases": {naming.write_alias(name): {}},
    }
    client.indices.create(index=name, body=body)


def show(client: OpenSearch, prefix: str, name: str) -> None:
    """Let readers have this index from now on, in one step.

    Raises:
        OpenSearchException, SearchError: it is not known to be so.
    """
    alias = naming.read_alias(prefix)
    actions = [
        {"remove": {"index": "*", "alias": alias, "must_exist": False}},
        {"add": {"index": name, "alias": alias, "filter": {"term": {"deleted": False}}}},
    ]
    answer = client.indices.update_aliases(body={"actions": actions})
    if not answer.get("acknowledged") or answer.get("errors"):
        raise SearchError(f"OpenSearch does not confirm that {name} is read now")


def delete(client: OpenSearch, name: str) -> None:
    """Remove an index, if it is there.

    Raises:
        OpenSearchException, SearchError: it may be there still.
    """
    answer = client.indices.delete(index=name, params={"ignore": NOT_FOUND})
    if not answer.get("acknowledged") and answer.get("status") != NOT_FOUND:
        raise SearchError(f"OpenSearch does not confirm that {name} is removed")


def _line(error: OpenSearchException) -> str:
    reason = error.error if isinstance(error, TransportError) and error.status_code != "N/A" else type(error).__name__
    return str(reason).partition("\n")[0]


def _create_first(connection: sa.Connection, client: OpenSearch, prefix: str) -> None:
    """Every row of the database is in the outbox still, for nothing was ever indexed: the drain fills it."""
    # Others were left by another database.
    name = free_name(connection, look(client, prefix), prefix)
    create(client, name)
    show(client, prefix, name)
    uuid = look(client, prefix)[name].uuid
    connection.execute(ADD, DECLARED | {"index_name": name, "index_uuid": uuid})
