"""Terms in documents of version 5. Delete this module with the next document version.

The term of a text was `path NUL text`, and the path alone was the term of its existence. The texts for CONTAINS were an
array, each after a code of four characters.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from hashlib import sha256
from typing import Any

import msgspec

from infra.index.terms import (
    FOR_CONTAINS,
    MAX_CONTENTS_BYTES,
    MAX_PATH_LENGTH,
    MAX_TERM_LENGTH,
    METADATA,
    contained_text,
    exists_term,
    fold_value,
    path_code,
    text_term,
)

CODE_LENGTH, CODE_BITS, FIRST_CODE_POINT = 4, 14, 0x4E00

_decode = msgspec.json.Decoder().decode


class FormerTerms(msgspec.Struct):
    """The fields of a document that have other terms."""

    texts: list[str]
    contents: list[str]


def text_terms(path: str, text: str) -> list[str]:
    """Return the terms of a text in an index of either version."""
    return [text_term(path, text), f"{path}\0{fold_value(path, text)}"]


def plain_terms(path: str, key: str) -> list[str]:
    """Return the terms of all texts that are equal without accents, but in an index of version 5 only of the key."""
    return [path_code(path) + key, FOR_CONTAINS + path_code(path) + key, f"{path}\0{key}"]


def exists_terms(path: str) -> list[str]:
    """Return the terms of the existence of a path in an index of either version."""
    return [exists_term(path), path]


@lru_cache(maxsize=65_536)
def former_code(path: str) -> str:
    """Return the code of a path before its texts for CONTAINS."""
    digest = int.from_bytes(sha256(path.encode()).digest()[: CODE_LENGTH * CODE_BITS // 8])
    places = range(CODE_LENGTH)
    return "".join(chr(FIRST_CODE_POINT + (digest >> CODE_BITS * place) % 2**CODE_BITS) for place in places)


def former_terms(values: Mapping[str, str | None], metadata: bytes | None) -> FormerTerms:
    """Return the terms of a consumer.

    Args:
        values: values of the fields, by name.
        metadata: JSON text.
    """
    collected = FormerTerms([], [])
    for path, value in values.items():
        _add(collected, path, value)
    if metadata is not None:
        inner = FormerTerms([], [])
        _add(inner, METADATA, _decode(metadata))
        collected.texts += dict.fromkeys(inner.texts)
        collected.contents += _shortest(inner.contents, MAX_CONTENTS_BYTES)
    return collected


def _shortest(texts: Iterable[str], limit: int) -> list[str]:
    shortest: list[str] = []
    for text in sorted(dict.fromkeys(texts), key=len):
        encoded = text.encode()
        if len(encoded) > limit:
            cut = encoded[:limit].decode(errors="ignore")
            return [*shortest, cut] if len(cut) > CODE_LENGTH else shortest
        shortest.append(text)
        limit -= len(encoded)
    return shortest


def _add(collected: FormerTerms, path: str, value: Any) -> None:
    if value is None or len(path) > MAX_PATH_LENGTH:
        return
    if path != METADATA:
        collected.texts.append(path)
    if isinstance(value, bool):
        value = "true" if value else "false"
    if isinstance(value, str):
        folded = fold_value(path, value)
        if len(folded) <= MAX_TERM_LENGTH:
            collected.texts.append(f"{path}\0{folded}")
        contained = folded if folded.isascii() else contained_text(path, value)
        collected.contents.append(former_code(path) + contained)
    elif isinstance(value, dict):
        for key, inner in value.items():
            _add(collected, f"{path}.{key}", inner)
    elif isinstance(value, list):
        for inner in value:
            _add(collected, path, inner)
