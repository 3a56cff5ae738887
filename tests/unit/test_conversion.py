"""Documents converted to the former document version equal the documents of the release with that version."""

import json
from datetime import UTC, datetime
from hashlib import sha256
from typing import NamedTuple

import msgspec
import pytest

from infra.index import documents, mapping
from infra.index.conversion import FIELDS, FORMER_VERSION, convert
from infra.index.former_terms import former_code
from tests.unit.test_documents import NOBODY, ROW

NEW_FIELDS = frozenset(
    {"allContents", "attributes", "emailDomain", "emailParts", "idTime", "nameOrder", "phoneCountry", "words"}
)


class Form(NamedTuple):
    document_version: int = FORMER_VERSION
    fields: frozenset[str] = FIELDS - NEW_FIELDS | {"contents"}


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
ACCENTS = ROW._replace(metadata=None, email="zoë@example.com", full_name="Seán O'Brien, Jr.", external_id="Ünï 7")
RELEASED = "6bc6a398864d0bf814636392f31554d994a9aa927177f4a9e2c3de640ee91ca2"
"""SHA-256 of the documents below, as the release with document version 5 (c37570e) made them."""


def test_documents_equal_those_of_the_release_with_the_former_version() -> None:
    rows = (ROW, NOBODY, ROW._replace(metadata=METADATA, full_name="田中太郎"), ACCENTS)
    sources = [convert(documents.document(row, ["aud_1"]), Form()) for row in rows]
    assert sha256(b"\n".join(sources)).hexdigest() == RELEASED


def test_former_version_has_texts_in_an_array_and_no_key_of_the_whole_name() -> None:
    source = documents.document(ACCENTS, [])
    present, former = (msgspec.json.decode(text) for text in (source, convert(source, Form())))
    assert former["contents"][3] == former_code("externalId") + "uni 7"
    assert former["texts"][-2:] == ["externalId", "externalId\0ünï 7"]
    assert set(present["forms"]) - set(former["forms"]) == {".sean obrien jr"}
    assert present.keys() - former.keys() == NEW_FIELDS


@pytest.mark.parametrize("form", [Form(mapping.DOCUMENT_VERSION, fields) for fields in (FIELDS, FIELDS | {"later"})])
def test_present_version_is_unchanged(form: Form) -> None:
    source = documents.document(ROW, [])
    assert convert(source, form) is source


def test_tombstone_is_the_same_in_both_versions() -> None:
    source = documents.tombstone(ROW.id, 7, 4, datetime(2024, 11, 1, tzinfo=UTC))
    assert convert(source, Form()) == source


def test_fields_that_the_index_does_not_declare_are_left_out() -> None:
    source = convert(documents.document(ROW, []), Form(mapping.DOCUMENT_VERSION, FIELDS - {"allContents", "numbers"}))
    assert msgspec.json.decode(source).keys() == msgspec.json.decode(documents.document(ROW, [])).keys() - {
        "allContents",
        "numbers",
    }
