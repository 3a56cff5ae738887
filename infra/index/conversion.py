"""Convert documents to the form of an index: the document version and the fields of its generation.

During a release, workers of two releases write to the same index. Documents of two versions would give searches and
verifications two meanings, so every worker writes the version of the code that built the index. The code makes
documents of the present version, and converts them to the former version only. With a new document version, replace
the conversion here by the conversion of the new version to the version before.
"""

from typing import Any, Protocol

import msgspec

from infra.fields import CONSUMER_FIELDS
from infra.index import mapping
from infra.index.folding import fold
from infra.index.terms import AFTER_NUMBERS, METADATA, terms

FIELDS = frozenset(mapping.MAPPING["properties"])
FORMER_VERSION = mapping.DOCUMENT_VERSION - 1
WRITTEN_VERSIONS = frozenset({FORMER_VERSION, mapping.DOCUMENT_VERSION})
"""Versions this code writes. A generation of an earlier version gets documents of the former version."""


class Form(Protocol):
    """The form of the documents in an index."""

    @property
    def document_version(self) -> int: ...

    @property
    def fields(self) -> frozenset[str]:
        """The fields of the mapping. The index refuses documents with further fields."""


_decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_value = msgspec.json.Decoder(str | None).decode


def convert(source: bytes, form: Form) -> bytes:
    """Convert a document or tombstone of the present version to the form of an index."""
    is_former = form.document_version < mapping.DOCUMENT_VERSION
    if not is_former and form.fields >= FIELDS:
        return source
    content = _decode(source)
    if is_former and "row" in content:
        content |= _former_terms(content["row"])
    return msgspec.json.encode({name: value for name, value in content.items() if name in form.fields})


def _former_terms(row: msgspec.Raw) -> dict[str, Any]:
    """Return the fields that documents of version 4 have with other terms: no dates, and accents for CONTAINS."""
    consumer = _decode(row)
    metadata = bytes(consumer[METADATA]).decode()
    values = {field.name: _decode_value(consumer[field.name]) for field in CONSUMER_FIELDS}
    former = terms(values, None if metadata == "null" else metadata, contained=fold)
    return {"numbers": [term for term in former.numbers if AFTER_NUMBERS not in term], "contents": former.contents}
