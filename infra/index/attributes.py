"""Values of documents for analysts: the domain of the address, the country of the number, and attributes.

None of these is looked up: live questions group by them (`api/analytics/`). An attribute is `path NUL value`, for each
text, number and boolean in metadata. A question can reach only those that the organization has declared.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

MAX_VALUES = 100
"""Attributes of a document."""
MAX_BYTES = 256
"""Bytes of a path and value together. A longer value is left out."""

_decode = msgspec.json.Decoder(float_hook=str).decode


def attributes(metadata: str | None) -> list[str]:
    """Return the attributes of metadata, without duplicates.

    >>> [text.partition(chr(0))[2] for text in attributes('{"points": 1.50, "tags": ["a", "b"]}')]
    ['1.50', 'a', 'b']
    """
    if metadata is None:
        return []
    found = (text for text in _texts("", _decode(metadata)) if len(text.encode()) <= MAX_BYTES)
    return list(dict.fromkeys(found))[:MAX_VALUES]


def email_domain(key: str | None) -> str | None:
    """Return the domain in the key of an address."""
    return key.rpartition("@")[2] or None if key else None


def _texts(path: str, value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _texts(f"{path}.{key}" if path else key, inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(path, inner)
    elif isinstance(value, bool):
        yield f"{path}\0{'true' if value else 'false'}"
    elif value is not None:
        yield f"{path}\0{value}"
