"""Convert documents to the form of an index: the document version and the fields of its generation.

During a release, workers of two releases write to the same index. Documents of two versions would give searches and
verifications two meanings, so every worker writes the version of the code that built the index. The code makes
documents of the present version, and converts them to the former version only. With a new document version, replace
the conversion here by the conversion of the new version to the version before.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from infra.fields import CONSUMER_FIELDS
from infra.index import mapping
from infra.index.former_terms import former_terms
from infra.index.search_texts import WHOLE_NAME
from infra.index.terms import METADATA

FIELDS = frozenset(mapping.MAPPING["properties"])
FORMER_VERSION = mapping.DOCUMENT_VERSION - 1
WRITTEN_VERSIONS = frozenset({FORMER_VERSION, mapping.DOCUMENT_VERSION})
"""Versions this code writes. A generation of an earlier version gets documents of the former version."""

FORMER_FIELDS = frozenset(
    {
        *("contents", "fullName", "fullName.starts", "fullName.whole"),
        *("email.parts", "email.starts", "email.whole", "externalId.folded"),
    }
)
"""Fields that only an index of the former version can be searched by."""


class Form(Protocol):
    """The form of the documents in an index."""

    @property
    def document_version(self) -> int: ...

    @property
    def fields(self) -> frozenset[str]:
        """The fields of the mapping. The index refuses documents with further fields."""


_decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_value = msgspec.json.Decoder(str | None).decode
_decode_forms = msgspec.json.Decoder(list[str]).decode


def convert(source: bytes, form: Form) -> bytes:
    """Convert a document or tombstone of the present version to the form of an index."""
    is_former = form.document_version < mapping.DOCUMENT_VERSION
    if not is_former and form.fields >= FIELDS:
        return source
    content: dict[str, Any] = _decode(source)
    if is_former and "row" in content:
        content |= _former_fields(content)
    return msgspec.json.encode({name: value for name, value in content.items() if name in form.fields})


def _former_fields(content: Mapping[str, msgspec.Raw]) -> dict[str, Any]:
    """Return the fields that documents of version 5 have in another form. Its forms have no key of the whole name."""
    consumer = _decode(content["row"])
    metadata = bytes(consumer[METADATA])
    values = {field.name: _decode_value(consumer[field.name]) for field in CONSUMER_FIELDS}
    former = former_terms(values, None if metadata == b"null" else metadata)
    forms = [form for form in _decode_forms(content["forms"]) if not form.startswith(WHOLE_NAME)]
    return {"forms": forms, "texts": former.texts, "contents": former.contents}
