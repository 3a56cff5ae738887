"""Terms for conditions: the texts and numbers of a consumer, each under the field's path.

A term is `path NUL value`. Texts are case-folded. Numbers are written so that the terms have the order of the numbers.
Documents and queries use the same functions, so both always agree.
"""

import unicodedata
from collections.abc import Iterable, Mapping
from decimal import Decimal
from functools import lru_cache
from hashlib import sha256
from typing import Any

import msgspec

METADATA = "metadata"
MAX_PATH_LENGTH = 340
"""Characters of an indexed path. Every path of a condition fits: five levels of metadata, each of 64 characters and a
dot."""
MAX_VALUE_LENGTH = 255
"""Characters of a condition's value."""
MAX_TERM_LENGTH = 3 * MAX_VALUE_LENGTH
"""Characters of an indexed text after case folding, which can triple the length."""
MAX_CONTENTS_BYTES = 2048
"""Bytes of a consumer's metadata for CONTAINS, because the index splits every character of it into trigrams: 15 KB
take the index 20 times as long as all further fields of a document. A text counts in UTF-8 after case folding, with the
12 bytes of its path's code."""
FORMER_CHUNK_LENGTH = 4096
"""Characters of a chunk of long text in documents of version 3. Chunks overlap by `MAX_TERM_LENGTH`."""
MAX_DIGITS, EXPONENT_OFFSET = 1000, 50_000
"""Significant digits of a number's term, and the offset that makes every exponent positive."""
DIGITS_COMPLEMENT = str.maketrans("0123456789", "9876543210")
CODE_LENGTH, CODE_BITS, FIRST_CODE_POINT = 4, 14, 0x4E00
"""Characters of a path's code, bits in each, and the lowest character."""

_decode = msgspec.json.Decoder(float_hook=Decimal).decode


class Terms(msgspec.Struct):
    """The terms of a consumer, by field of the document."""

    texts: list[str]
    """For each field with a value: the path alone (for EXISTS), and the path with the text."""
    numbers: list[str]
    contents: list[str]
    """For CONTAINS: the code of the path with the text."""


def fold(text: str) -> str:
    """Return text without case, by Unicode's canonical caseless matching."""
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", text).casefold())


def text_term(path: str, text: str) -> str:
    return f"{path}\0{fold(text)}"


@lru_cache(maxsize=65_536)
def path_code(path: str) -> str:
    """Return a path as four characters. The probability that two paths have the same code is 2**-56.

    The index splits `contents` into trigrams. With the paths written out, most trigrams would be of paths.
    """
    digest = int.from_bytes(sha256(path.encode()).digest()[: CODE_LENGTH * CODE_BITS // 8])
    return "".join(
        chr(FIRST_CODE_POINT + (digest >> CODE_BITS * position) % 2**CODE_BITS) for position in range(CODE_LENGTH)
    )


def number_term(path: str, number: Decimal | int) -> str:
    """Return the term of a number. Terms of a path have the order of the numbers, of any size and precision.

    After the NUL comes the sign (0 negative, 1 zero, 2 positive), the exponent in five digits, and the significant
    digits. A negative number has the complement of each digit, and ends in `~`, greater than any digit.

    >>> number_term("n", Decimal("-1.5")) < number_term("n", -1) < number_term("n", Decimal("0.2"))
    True
    """
    if not number:
        return f"{path}\0001"
    if isinstance(number, int):
        digits, power, is_negative = (written := str(abs(number))), len(written) - 1, number < 0
    else:
        sign, parts, _ = number.as_tuple()
        digits, power, is_negative = "".join(map(str, parts)), number.adjusted(), bool(sign)
    magnitude = f"{power + EXPONENT_OFFSET:05d}{digits[:MAX_DIGITS].rstrip('0')}"
    if is_negative:
        return f"{path}\0000{magnitude.translate(DIGITS_COMPLEMENT)}~"
    return f"{path}\0002{magnitude}"


def terms(values: Mapping[str, Any], metadata: str | None) -> Terms:
    """Return the terms of a consumer.

    Args:
        values: values of the fields, by name; arrays are indexed like arrays in metadata.
        metadata: JSON text.
    """
    collected = Terms([], [], [])
    for path, value in values.items():
        if isinstance(value, str):  # saves the call of `_add`, 3 % of the time to make a document
            collected.texts.append(path)
            _add_text(collected, path, value)
        else:
            _add(collected, path, value)
    if metadata is not None:
        inner = Terms([], [], [])
        _add(inner, METADATA, _decode(metadata))
        collected.texts += dict.fromkeys(inner.texts)
        collected.numbers += dict.fromkeys(inner.numbers)
        collected.contents += _shortest(inner.contents, MAX_CONTENTS_BYTES)
    return collected


def former_terms(values: Mapping[str, Any], metadata: str | None) -> Terms:
    """Return the terms of a consumer in documents of version 3, in which every text of the metadata is in `contents`.

    Args:
        values: values of the fields, by name.
        metadata: JSON text.
    """
    collected = Terms([], [], [])
    for path, value in values.items():
        _add(collected, path, value)
    if metadata is not None:
        _add(collected, METADATA, _decode(metadata))
    chunks = [chunk for text in collected.contents for chunk in _former_chunks(text)]
    return Terms(list(dict.fromkeys(collected.texts)), collected.numbers, chunks)


def _former_chunks(text: str) -> list[str]:
    """Cut the text after the code of its path into chunks, each with the code."""
    code, folded = text[:CODE_LENGTH], text[CODE_LENGTH:]
    if len(folded) <= MAX_TERM_LENGTH:
        return [text]
    begins = range(0, len(folded) - MAX_TERM_LENGTH, FORMER_CHUNK_LENGTH - MAX_TERM_LENGTH)
    return [code + folded[begin : begin + FORMER_CHUNK_LENGTH] for begin in begins]


def _shortest(texts: Iterable[str], limit: int) -> list[str]:
    """Return the shortest texts, without duplicates, up to a number of bytes. The last text may be cut."""
    shortest: list[str] = []
    for text in sorted(dict.fromkeys(texts), key=len):
        encoded = text.encode()
        if len(encoded) > limit:
            cut = encoded[:limit].decode(errors="ignore")
            return [*shortest, cut] if len(cut) > CODE_LENGTH else shortest
        shortest.append(text)
        limit -= len(encoded)
    return shortest


def _add(collected: Terms, path: str, value: Any) -> None:
    """Add the terms of a value: the path alone, and the content. Every element of an array has the array's path."""
    if value is None or len(path) > MAX_PATH_LENGTH:
        return
    if path != METADATA:
        collected.texts.append(path)
    if isinstance(value, str):
        _add_text(collected, path, value)
    elif isinstance(value, dict):
        for key, inner in value.items():
            _add(collected, f"{path}.{key}", inner)
    elif isinstance(value, list):
        for inner in value:
            _add(collected, path, inner)
    elif isinstance(value, bool):
        _add_text(collected, path, "true" if value else "false")
    else:
        collected.numbers.append(number_term(path, value))


def _add_text(collected: Terms, path: str, text: str) -> None:
    folded = fold(text)
    if len(folded) <= MAX_TERM_LENGTH:
        collected.texts.append(f"{path}\0{folded}")
    collected.contents.append(path_code(path) + folded)
