"""Convert documents to the form of an index: the document version and the fields of its generation.

During a release, workers of two releases write to the same index. Documents of two versions would give searches and
verifications two meanings, so every worker writes the version of the code that built the index. The code makes
documents of the present version, and converts them to the former version only. With a new document version, replace
the conversion here by the conversion of the new version to the version before.
"""

import unicodedata
from functools import partial
from typing import Any, Protocol

import msgspec

from infra.index import mapping, names

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
_decode_text = msgspec.json.Decoder(str | None).decode
_former_parts = partial(names.parts, normalized=partial(unicodedata.normalize, "NFKC"))


def convert(source: bytes, form: Form) -> bytes:
    """Convert a document or tombstone of the present version to the form of an index."""
    is_former = form.document_version < mapping.DOCUMENT_VERSION
    if not is_former and form.fields >= FIELDS:
        return source
    content = _decode(source)
    if is_former and "row" in content:
        content |= _former_forms(content)
    return msgspec.json.encode({name: value for name, value in content.items() if name in form.fields})


def _former_forms(content: dict[str, msgspec.Raw]) -> dict[str, Any]:
    """Return the fields that documents of version 5 have with other terms: an acute accent without a letter splits a
    name, instead of being an apostrophe.
    """
    forms = names.forms(_decode_text(content["fullName"]), _decode_text(content["email"]), _former_parts)
    return {"forms": forms.whole, "formStarts": forms.starts}
