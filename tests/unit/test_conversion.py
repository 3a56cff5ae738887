"""Documents converted to the former document version equal the documents of the release with that version."""

import json
from datetime import UTC, datetime
from hashlib import sha256
from typing import NamedTuple

import msgspec
import pytest

from infra.index import documents, mapping
from infra.index.conversion import FIELDS, FORMER_VERSION, convert
from infra.index.terms import number_term, path_code
from tests.unit.test_documents import NOBODY, ROW

ADDED = {"attributes", "emailDomain", "forms", "formStarts", "idTime", "nameOrder", "phoneCountry"}
"""Fields that the former version does not have."""


class Form(NamedTuple):
    document_version: int = FORMER_VERSION
    fields: frozenset[str] = FIELDS - ADDED


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
RELEASED = "bf2f6ae1273b4ce248a1592555082083d3611709db9cbf740da2f0c3b00313fa"
"""SHA-256 of the documents below, as the release with document version 4 (de39b70) made them."""


def test_documents_equal_those_of_the_release_with_the_former_version() -> None:
    rows = (ROW, NOBODY, ROW._replace(metadata=METADATA, full_name="田中太郎"))
    sources = [convert(documents.document(row, ["aud_1"]), Form()) for row in rows]
    assert sha256(b"\n".join(sources)).hexdigest() == RELEASED


def test_former_version_has_accents_and_no_dates() -> None:
    metadata = {"note": "Café", "day": "1990-12-31", "number": 5}
    source = documents.document(ROW._replace(metadata=json.dumps(metadata), full_name="Zoë"), [])
    present, former = (msgspec.json.decode(text) for text in (source, convert(source, Form())))
    assert path_code("metadata.note") + "cafe" in present["contents"]
    assert path_code("metadata.note") + "café" in former["contents"]
    assert path_code("fullName") + "zoë" in former["contents"]
    assert (len(present["numbers"]), former["numbers"]) == (2, [number_term("metadata.number", 5)])
    assert present.keys() - former.keys() == FIELDS - Form().fields


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
