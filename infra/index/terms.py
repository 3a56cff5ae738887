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
from typing import Any, NamedTuple

import msgspec

from infra import emails, fields
from infra.index.analysis import TEXT_END
from infra.index.attributes import MAX_ATTRIBUTES, attribute
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
END_BYTES = len(TEXT_END.encode())
IN_PLACE_OF_END = "\ufffe"
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
LONGEST_CACHED, CACHED = 32, 16_384
"""Characters of a text in metadata whose terms are kept in memory, and how many are kept: consumers share them."""
MAX_CACHED_PATHS = 32
"""Paths of a consumer whose terms are kept in memory, joined."""

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
    attributes: list[str]
    """Of metadata, for analysts (`attributes.py`)."""

    @property
    def all_texts(self) -> str:
        """The field `texts` of the document. The paths come first, because most documents have the same."""
        terms_of = _cached_exist_terms if len(self.paths) <= MAX_CACHED_PATHS else _exist_terms
        return TEXT_END.join([terms_of(tuple(self.paths)), *dict.fromkeys(self.texts)])

    @property
    def all_contents(self) -> str | None:
        """The field `allContents` of the document."""
        return TEXT_END + TEXT_END.join(self.contents) if self.contents else None


class _Text(NamedTuple):
    """What a text in metadata adds to the terms."""

    content: str
    text: str | None
    date: str | None
    attribute: str | None


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


def _exist_terms(paths: tuple[str, ...]) -> str:
    return TEXT_END.join(map(exists_term, dict.fromkeys(paths)))


_cached_exist_terms = lru_cache(maxsize=1024)(_exist_terms)


def _without_end(text: str) -> str:
    return text.replace(TEXT_END, IN_PLACE_OF_END)


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
    collected = Terms([], [], [], [], [])
    for path, value in values.items():
        if isinstance(value, str):
            content, text = _comparable(path, value)
            collected.paths.append(path)
            collected.contents.append(content)
            if text is not None:
                collected.texts.append(text)
        else:
            _add(collected, path, value)
    if metadata is not None:
        inner = Terms([], [], [], [], [])
        _add_members(inner, METADATA, _decode(metadata))
        collected.paths += inner.paths
        collected.texts += inner.texts
        collected.numbers += dict.fromkeys(inner.numbers)
        collected.attributes = list(dict.fromkeys(inner.attributes))[:MAX_ATTRIBUTES]
        _add_contents(collected, inner.contents)
    return collected


def _add_contents(collected: Terms, contents: Iterable[str]) -> None:
    """Add the contents of metadata, without duplicates, the shortest up to `MAX_CONTENTS_BYTES`. The last may be cut.

    A text that is cut or left out still counts for equality.
    """
    distinct = [*dict.fromkeys(contents)]
    left = MAX_CONTENTS_BYTES
    if len("".join(distinct)) * MAX_BYTES + len(distinct) * END_BYTES <= left:
        collected.contents += distinct
        return
    for text in sorted(distinct, key=_length):
        encoded = text.removeprefix(FOR_CONTAINS).encode()
        left -= END_BYTES
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


def _add_members(collected: Terms, path: str, members: Mapping[str, Any]) -> None:
    for key, value in members.items():
        _add(collected, f"{path}.{key}", value)


def _add(collected: Terms, path: str, value: Any) -> None:
    """Add the path and the terms of its value. Every element of an array has the array's path."""
    if value is None or len(path) > MAX_PATH_LENGTH:
        return
    collected.paths.append(path)
    if isinstance(value, dict):
        _add_members(collected, path, value)
    elif isinstance(value, list):
        _add_elements(collected, path, value)
    else:
        _add_scalar(collected, path, value)


def _add_elements(collected: Terms, path: str, values: Iterable[Any]) -> None:
    for value in values:
        if isinstance(value, dict):
            _add_members(collected, path, value)
        elif isinstance(value, list):
            # An array in an array has no attributes.
            _add_elements(msgspec.structs.replace(collected, attributes=[]), path, value)
        elif value is not None:
            _add_scalar(collected, path, value)


def _add_scalar(collected: Terms, path: str, value: Any) -> None:
    if isinstance(value, bool):
        value = "true" if value else "false"
    if not isinstance(value, str):
        collected.numbers.append(number_term(path, value))
        if text := attribute(path, str(value) if isinstance(value, int) else format(value, "f")):
            collected.attributes.append(text)
        return
    make = _cached_text if len(value) <= LONGEST_CACHED else _text
    content, for_equality, date_, attribute_ = make(path, value)
    collected.contents.append(content)
    if for_equality is not None:
        collected.texts.append(for_equality)
    if date_ is not None:
        collected.numbers.append(date_)
    if attribute_ is not None:
        collected.attributes.append(attribute_)


def _text(path: str, text: str) -> _Text:
    moment = date(text) if len(text) in DATE_LENGTHS and text[:4].isdecimal() else None
    return _Text(*_comparable(path, text), date_term(path, moment) if moment else None, attribute(path, text))


_cached_text = lru_cache(maxsize=CACHED)(_text)


def _comparable(path: str, text: str) -> tuple[str, str | None]:
    """Return the text for CONTAINS, and the text for equality if it is another."""
    if path != EMAIL and len(text) <= MAX_TERM_LENGTH and text.isascii():  # most texts
        return path_code(path) + text.lower(), None
    code, folded = path_code(path), fold_value(path, text)
    is_short = len(folded) <= MAX_TERM_LENGTH
    if is_short and folded.isascii():
        return code + folded, None
    folded, contained = _without_end(folded), contained_text(path, text)
    if is_short and folded == contained:
        return code + folded, None
    return FOR_CONTAINS + code + contained, code + folded if is_short else None
