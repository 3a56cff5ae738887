"""Documents converted to the former document version equal the documents of the release with that version."""

import json
from datetime import UTC, datetime
from hashlib import sha256
from typing import NamedTuple

import msgspec
import pytest

from infra.index import documents, mapping
from infra.index.conversion import FIELDS, FORMER_VERSION, convert
from infra.index.terms import path_code
from tests.unit.test_documents import NOBODY, ROW


class Form(NamedTuple):
    document_version: int = FORMER_VERSION
    fields: frozenset[str] = FIELDS


METADATA = json.dumps(
    {
        "long": "Straße " * 1200,
        "again": ["VIP", "VIP", "vip", 1, 1, 1.0, True, None],
        "deep": {"a": {"b": ["x" * 800, ""]}},
        "short": "z",
    }
)
RELEASED = "c957dc87aa88c3eb2fd8cb2afd19c48e0c828213434f01d99985b908cb7b08bd"
"""SHA-256 of the documents below, as the release with document version 3 (72bb6f0) made them."""


def test_documents_equal_those_of_the_release_with_the_former_version() -> None:
    rows = (ROW, NOBODY, ROW._replace(metadata=METADATA, full_name="田中太郎"))
    sources = [convert(documents.document(row, ["aud_1"]), Form()) for row in rows]
    assert sha256(b"\n".join(sources)).hexdigest() == RELEASED


def test_former_version_keeps_every_text_for_contains() -> None:
    text = "needle in hay " * 600
    source = documents.document(ROW._replace(metadata=json.dumps({"note": text})), [])
    former = msgspec.json.decode(convert(source, Form()))["contents"]
    notes = [entry for entry in former if entry.startswith(path_code("metadata.note"))]
    assert max(map(len, notes)) <= 4100
    assert all(text[begin : begin + 700] in "".join(notes) for begin in range(0, len(text) - 700, 700))
    assert former != msgspec.json.decode(source)["contents"]


@pytest.mark.parametrize("form", [Form(mapping.DOCUMENT_VERSION), Form(mapping.DOCUMENT_VERSION, FIELDS | {"later"})])
def test_present_version_is_unchanged(form: Form) -> None:
    source = documents.document(ROW, [])
    assert convert(source, form) is source


def test_tombstone_is_the_same_in_both_versions() -> None:
    source = documents.tombstone(ROW.id, 7, 4, datetime(2024, 11, 1, tzinfo=UTC))
    assert convert(source, Form()) == source


def test_fields_that_the_index_does_not_declare_are_left_out() -> None:
    source = convert(documents.document(ROW, []), Form(fields=FIELDS - {"contents", "numbers"}))
    assert msgspec.json.decode(source).keys() == msgspec.json.decode(documents.document(ROW, [])).keys() - {
        "contents",
        "numbers",
    }
