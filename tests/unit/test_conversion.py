"""Documents converted to the former document version equal the documents of the release with that version."""

import json
from datetime import UTC, datetime
from hashlib import sha256
from typing import NamedTuple

import msgspec
import pytest

from infra.index import documents, mapping
from infra.index.conversion import FIELDS, FORMER_VERSION, convert
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
        "day": "1990-12-31",
        "accents": "Ünï é",
    }
)
RELEASED = "d41a8f80c9f49835c6511d41bccc56f17d1a076ad9981ae3bb8168919ec9a3a0"
"""SHA-256 of the documents below, as the release with document version 5 (fa64695) made them."""
NAMES = [
    *("田中太郎", "Anna O´Quill", "Nell O´Quill Lee-Ott", "Luca D\u1fbdAngelo", "Dell\u1fbfAcqua MÜLLER"),
    *("΄Ελλη Παππά", "Anna O｀Quill", "Anna´ Quill", "´ Quill", "O´Quill"),
]


def test_documents_equal_those_of_the_release_with_the_former_version() -> None:
    rows = [ROW, NOBODY, *(ROW._replace(metadata=METADATA, full_name=name) for name in NAMES)]
    sources = [convert(documents.document(row, ["aud_1"]), Form()) for row in rows]
    assert sha256(b"\n".join(sources)).hexdigest() == RELEASED


def test_former_version_splits_names_at_accents_without_a_letter() -> None:
    source = documents.document(ROW._replace(full_name="Anna O´Quill"), [])
    present, former = (msgspec.json.decode(text) for text in (source, convert(source, Form())))
    assert present["forms"] == ["quill", "oquill", "annao"]
    assert former["forms"] == ["oquill", "annao"]


@pytest.mark.parametrize("form", [Form(mapping.DOCUMENT_VERSION, fields) for fields in (FIELDS, FIELDS | {"later"})])
def test_present_version_is_unchanged(form: Form) -> None:
    source = documents.document(ROW, [])
    assert convert(source, form) is source


def test_tombstone_is_the_same_in_both_versions() -> None:
    source = documents.tombstone(ROW.id, 7, 4, datetime(2024, 11, 1, tzinfo=UTC))
    assert convert(source, Form()) == source


def test_fields_that_the_index_does_not_declare_are_left_out() -> None:
    source = convert(documents.document(ROW, []), Form(mapping.DOCUMENT_VERSION, FIELDS - {"contents", "numbers"}))
    assert msgspec.json.decode(source).keys() == msgspec.json.decode(documents.document(ROW, [])).keys() - {
        "contents",
        "numbers",
    }
