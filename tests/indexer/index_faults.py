"""Faults of an index, planted by hand."""

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from infra.ids import new_ids
from tests.indexer.conftest import Pipeline


class Fault(NamedTuple):
    cause: str
    plant: Callable[[Pipeline, str], str]
    """Plants the fault at or beside a consumer's document, and returns the id of the wrong document."""


def write_document(pipeline: Pipeline, document_id: str, source: Any, version: int = 1) -> str:
    """Write any document under an id."""
    assert pipeline.write_by_hand(document_id, version, msgspec.json.encode(source)) == 200
    return document_id


def rewrite_document(pipeline: Pipeline, consumer_id: str, higher: int = 0, **changes: Any) -> str:
    """Change a consumer's document, at the row's version plus `higher`."""
    return write_document(
        pipeline, consumer_id, pipeline.document(consumer_id) | changes, pipeline.version(consumer_id) + higher
    )


def remove_document(pipeline: Pipeline, consumer_id: str) -> str:
    params: dict[str, Any] = {"refresh": "true", "routing": pipeline.routing}
    pipeline.writer.delete(index=pipeline.index_name, id=consumer_id, params=params)
    return consumer_id


def lose_change(pipeline: Pipeline, consumer_id: str) -> str:
    pipeline.rename(consumer_id, "Somebody else")
    pipeline.run("DELETE FROM outbox WHERE consumer_id = :id", id=consumer_id)
    return consumer_id


def lose_delete(pipeline: Pipeline, consumer_id: str) -> str:
    pipeline.delete(consumer_id)
    pipeline.run("DELETE FROM outbox WHERE consumer_id = :id", id=consumer_id)
    return consumer_id


def write_tombstone(pipeline: Pipeline, consumer_id: str) -> str:
    """Write a tombstone for an existing consumer."""
    version = pipeline.version(consumer_id) + 1
    source = {"id": consumer_id, "environmentId": str(pipeline.environment), "version": version}
    return write_document(
        pipeline, consumer_id, source | {"deletedAt": "2024-01-01T00:00:00.000Z", "deleted": True}, version
    )


def add_copy(pipeline: Pipeline, consumer_id: str, document_id: str | None = None, **changes: Any) -> str:
    """Add a copy of a consumer's document under another id."""
    new = document_id or new_ids("cons_", 1)[0]
    return write_document(pipeline, new, pipeline.document(consumer_id) | {"id": new} | changes)


def add_without_id(pipeline: Pipeline, _: str) -> str:
    return write_document(pipeline, "nameless", {"email": "who@example.com", "deleted": False})


FAULTS = {
    "removed": Fault("missing", remove_document),
    "a change lost": Fault("stale", lose_change),
    "a later version": Fault("ahead", lambda pipeline, id_: rewrite_document(pipeline, id_, 3, fullName="Later")),
    "far ahead": Fault("ahead", lambda pipeline, id_: rewrite_document(pipeline, id_, 1 << 40)),
    "tombstone of an existing consumer": Fault("ahead", write_tombstone),
    "a delete lost": Fault("resurrected", lose_delete),
    "document without a consumer": Fault("resurrected", add_copy),
    "altered": Fault("content", lambda pipeline, id_: rewrite_document(pipeline, id_, fullName="Mallory")),
    "altered row": Fault("content", lambda pipeline, id_: rewrite_document(pipeline, id_, row={"id": id_})),
    "another id in it": Fault(
        "content", lambda pipeline, id_: rewrite_document(pipeline, id_, id=new_ids("cons_", 1)[0])
    ),
    "no id in it": Fault("content", lambda pipeline, id_: rewrite_document(pipeline, id_, id=None)),
    "in another environment": Fault(
        "foreign", lambda pipeline, id_: rewrite_document(pipeline, id_, environmentId="999")
    ),
    "of an unknown environment": Fault("foreign", lambda pipeline, id_: add_copy(pipeline, id_, environmentId="999")),
    "id without prefix": Fault("foreign", lambda pipeline, id_: add_copy(pipeline, id_, "junk")),
    "tombstone with an id without prefix": Fault(
        "foreign", lambda pipeline, id_: add_copy(pipeline, id_, "x", deleted=True)
    ),
    "before all ids": Fault("foreign", lambda pipeline, id_: add_copy(pipeline, id_, "!")),
    "not a consumer": Fault("foreign", add_without_id),
}
