"""Values of documents for analysts: the domain of the address, the country of the number, and attributes.

None of these is looked up: live questions group by them (`api/analytics/`). An attribute is `path NUL value`, for each
text, number and boolean in metadata. A question can reach only those that the organization has declared.
"""

from typing import Any

import msgspec

MAX_VALUES = 100
"""Attributes of a document."""
MAX_LENGTH = 128
"""Characters of a path and value together. A longer value is left out."""

_WORDS = {True: "true", False: "false"}
_decode = msgspec.json.Decoder(float_hook=str).decode


def attributes(metadata: str | None) -> list[str]:
    """Return the attributes of metadata, without duplicates.

    >>> [text.partition(chr(0))[2] for text in attributes('{"points": 1.50, "tags": ["a", "b"]}')]
    ['1.50', 'a', 'b']
    """
    if metadata is None:
        return []
    found = list[str]()
    _add(found, "", _decode(metadata))
    return list(dict.fromkeys(found))[:MAX_VALUES]


def email_domain(key: str | None) -> str | None:
    """Return the domain in the key of an address."""
    return key.rpartition("@")[2] or None if key else None


def _add(found: list[str], path: str, value: Any) -> None:
    """Add the attributes of an object, with the path of the object and a dot, or nothing, before each key."""
    for key, inner in value.items():
        for each in inner if isinstance(inner, list) else (inner,):
            if isinstance(each, dict):
                _add(found, f"{path}{key}.", each)
            elif each is not None and not isinstance(each, list):
                text = f"{path}{key}\0{_WORDS.get(each, each) if isinstance(each, bool) else each}"
                if len(text) <= MAX_LENGTH:
                    found.append(text)
