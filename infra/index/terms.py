"""Terms for conditions: the texts and numbers of a consumer, each under the field's path.

The term of a number or date is `path NUL value`, written so that the terms have the order of the values. The term of a
text is the code of the path and the text, case-folded; for CONTAINS a text has no accents either. Documents and queries
use the same functions, so both always agree.

Nearly all texts are the same for equality and for CONTAINS. A document has these once, joined to a single text
(`allContents`), which the index takes for both. It has the others twice, the one for CONTAINS with a mark.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from hashlib import sha256
from typing import Any

import msgspec

from infra import emails, fields
from infra.index.analysis import TEXT_END
from infra.index.folding import fold, plain
from infra.wire import time

METADATA, EMAIL = "metadata", "email"
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
12 bytes of its path's code and its end."""
WITHOUT_END = str.maketrans({TEXT_END: "\ufffe"})
FOR_CONTAINS, FOR_EXISTS = "~", "!"
"""Marks before the code of a path: a text for CONTAINS only, and the term of the path itself."""
FIELD_CODES = {"email": "e", "phone": "p", "fullName": "n", "externalId": "x"}
AFTER_NUMBERS = "\0003"
"""After a path: follows the terms of all numbers, and begins the terms of dates."""
DATE_LENGTHS = range(len("2024-11-01"), len("2024-11-01T10:00:00.000000000+00:00") + 1)
MAX_DIGITS, EXPONENT_OFFSET = 1000, 50_000
"""Significant digits of a number's term, and the offset that makes every exponent positive."""
DIGITS_COMPLEMENT = str.maketrans("0123456789", "9876543210")
CODE_LENGTH, CODE_BITS, FIRST_CODE_POINT = 3, 15, 0x5000
"""Characters of the code of a path in metadata, bits in each, and the lowest character."""

MAX_BYTES = 4
"""Bytes of a character in UTF-8, at most."""

_decode = msgspec.json.Decoder(float_hook=Decimal).decode


class Terms(msgspec.Struct):
    """The terms of a consumer, by field of the document."""

    paths: list[str]
    """The paths of all fields with a value, for EXISTS."""
    texts: list[str]
    """For equality, without those in `contents`."""
    numbers: list[str]
    """Also the dates among the texts of metadata."""
    contents: list[str]
    """For CONTAINS: the code of the path with the text. Those without a mark also count for equality."""

    @property
    def all_texts(self) -> str:
        """The field `texts` of the document. The paths come first, because most documents have the same."""
        return TEXT_END.join([*map(exists_term, dict.fromkeys(self.paths)), *dict.fromkeys(self.texts)])

    @property
    def all_contents(self) -> str | None:
        """The field `allContents` of the document."""
        return TEXT_END + TEXT_END.join(self.contents) if self.contents else None


def fold_value(path: str, text: str) -> str:
    """Return the text of a field as it is compared."""
    return emails.fold(text) if path == EMAIL else fold(text)


def contained_text(path: str, text: str) -> str:
    """Return the text of a field as CONTAINS compares it."""
    # A space at an end is part of the text.
    return _without_end(plain(emails.fold(text) if path == EMAIL and text == text.strip() else text))


def text_term(path: str, text: str) -> str:
    return path_code(path) + _without_end(fold_value(path, text))


@lru_cache(maxsize=65_536)
def exists_term(path: str) -> str:
    """Return the term of all consumers with a value at a path."""
    return FOR_EXISTS + path_code(path)


def _without_end(text: str) -> str:
    return text if text.isascii() else text.translate(WITHOUT_END)


@lru_cache(maxsize=65_536)
def path_code(path: str) -> str:
    """Return a path as a character, or as three characters for a path in metadata.

    The probability that two paths have the same code is 2**-45. The index splits `allContents` into trigrams. With the
    paths written out, most trigrams would be of paths.
    """
    if path in FIELD_CODES:
        return FIELD_CODES[path]
    digest = int.from_bytes(sha256(path.encode()).digest()[:6])
    return "".join(chr(FIRST_CODE_POINT + (digest >> CODE_BITS * place) % 2**CODE_BITS) for place in range(CODE_LENGTH))


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


def date_term(path: str, moment: datetime) -> str:
    """Return the term of a date or time. Terms of a path have the order of the times, after all numbers."""
    return f"{path}{AFTER_NUMBERS}{time(moment)}"


def date(text: str) -> datetime | None:
    """Return the time in a text as RFC 3339 has it, or midnight in UTC of a date; None for any other text."""
    try:
        return fields.timestamp(text)
    except ValueError:
        return None


def terms(values: Mapping[str, Any], metadata: str | None) -> Terms:
    """Return the terms of a consumer.

    Args:
        values: values of the fields, by name; arrays are indexed like arrays in metadata.
        metadata: JSON text.
    """
    collected = Terms([], [], [], [])
    for path, value in values.items():
        if isinstance(value, str):  # saves the call of `_add`, 3 % of the time to make a document
            collected.paths.append(path)
            _add_text(collected, path, value)
        else:
            _add(collected, path, value)
    if metadata is not None:
        inner = Terms([], [], [], [])
        _add(inner, METADATA, _decode(metadata))
        collected.paths += inner.paths
        collected.texts += inner.texts
        collected.numbers += dict.fromkeys(inner.numbers)
        _add_contents(collected, inner.contents)
    return collected


def _add_contents(collected: Terms, contents: Iterable[str]) -> None:
    """Add the contents of metadata, without duplicates, the shortest up to `MAX_CONTENTS_BYTES`. The last may be cut.

    A text that is cut or left out still counts for equality.
    """
    distinct = [*dict.fromkeys(contents)]
    left = MAX_CONTENTS_BYTES
    if sum(map(len, distinct)) * MAX_BYTES + len(distinct) * len(TEXT_END.encode()) <= left:
        collected.contents += distinct
        return
    for text in sorted(distinct, key=_length):
        encoded = text.removeprefix(FOR_CONTAINS).encode()
        left -= len(TEXT_END.encode())
        if len(encoded) <= left:
            collected.contents.append(text)
        else:
            if not text.startswith(FOR_CONTAINS):
                collected.texts.append(text)
            cut = encoded[: max(left, 0)].decode(errors="ignore")
            if len(cut) > CODE_LENGTH:
                collected.contents.append(FOR_CONTAINS + cut)
        left = max(left - len(encoded), 0)


def _length(text: str) -> int:
    return len(text) - text.startswith(FOR_CONTAINS)


def _add(collected: Terms, path: str, value: Any) -> None:
    """Add the terms of a value: the path alone, and the content. Every element of an array has the array's path."""
    if value is None or len(path) > MAX_PATH_LENGTH:
        return
    if path != METADATA:
        collected.paths.append(path)
    if isinstance(value, str):
        _add_text(collected, path, value)
        if len(value) in DATE_LENGTHS and value[:4].isdecimal() and (moment := date(value)):
            collected.numbers.append(date_term(path, moment))
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
    code, folded = path_code(path), fold_value(path, text)
    is_short = len(folded) <= MAX_TERM_LENGTH
    if is_short and folded.isascii():
        collected.contents.append(code + folded)
        return
    folded, contained = _without_end(folded), contained_text(path, text)
    if is_short and folded == contained:
        collected.contents.append(code + folded)
        return
    if is_short:
        collected.texts.append(code + folded)
    collected.contents.append(FOR_CONTAINS + code + contained)
