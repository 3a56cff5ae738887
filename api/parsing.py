"""JSON bodies, parsed strictly and in steps.

A batch or a list of ids has up to 10 MiB. Such a body is split into its items without parsing them: msgspec passes over
10 MiB in 40 ms at most, and makes no objects. Each item is then parsed alone, in a step of at most `OBJECT_BODY_BYTES`.
"""

import json
import re
from collections.abc import Callable
from functools import cache
from http import HTTPStatus
from typing import Any

import msgspec

from api.error_codes import ErrorCode
from api.errors import Problem
from api.turns import Steps
from infra.wire import collection_paused, decode

STEP_TOKENS, STEP_BYTES = 1000, 256 * 1024
WHITE_SPACE = re.compile(rb"[ \t\n\r]*")
# JSON known to be well-formed, up to and including the next text, bracket or brace. A text with too many escapes to
# match at once is not matched, except for its quotation mark.
TOKEN = re.compile(
    rb"""[^"\[{\]}]{0,65536}+
    (?: " (?P<text> [^"\\]*+ (?:\\.[^"\\]*+){0,100000}+ ) " (?: [ \t\n\r]*+ (?P<name>:) [ \t\n\r]*+ )?
      | (?P<opening>[\[{]) | (?P<closing>[\]}]) | (?P<unmatched>") )?""",
    re.DOTALL | re.VERBOSE,
)
ABSENT = msgspec.Raw(b"")
NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
NUL_FOUND = "NUL characters are not allowed"


def parse(text: bytes | msgspec.Raw, path: str = "") -> Steps[Any]:
    """Parse JSON strictly.

    Args:
        text: the JSON.
        path: of the value in the body, for the message.

    Raises:
        Problem: 400 if the text is not JSON in UTF-8, repeats a key in an object, or contains NUL, a lone surrogate or
            a number beyond the range of a double.
    """
    try:
        with collection_paused():
            value = decode(text)
        yield
        content = bytes(text)
        if _has_nul(content):
            raise ValueError(NUL_FOUND)
        # Most texts are what an encoder makes of the value, so no key is repeated: a quarter of the time.
        if msgspec.json.format(content, indent=-1) != msgspec.json.encode(value):
            with collection_paused():
                _KEYS.decode(content.decode())
        yield
    except RecursionError:
        raise invalid_json("JSON is nested too deeply", path) from None
    except (ValueError, msgspec.MsgspecError) as error:
        raise invalid_json(str(error), path) from None
    return value


def first_byte(body: bytes) -> bytes:
    """Return the first byte that is not white space."""
    match = WHITE_SPACE.match(body)
    assert match, "the pattern matches nothing, too"
    return body[match.end() : match.end() + 1]


def member(body: bytes, key: str, other: Callable[[str], None]) -> Steps[bytes]:
    """Return the member `key` of an object, unparsed; empty if the object has no such member.

    Calls `other` with the name of each other member. The values of these members are not parsed.

    Raises:
        Problem: 400 if the body is not JSON, or has the member twice.
    """
    try:
        value = bytes(_wrapper(key).decode(body).value)
        yield
        yield from _other_names(body, key, value, other)
    except RecursionError:
        raise invalid_json("JSON is nested too deeply") from None
    except (ValueError, msgspec.MsgspecError) as error:
        raise invalid_json(str(error)) from None
    return value


def elements(array: bytes | msgspec.Raw, limit: int) -> list[msgspec.Raw] | None:
    """Return the elements of an array, unparsed: up to `limit` and one more. Return None for another value.

    Raises:
        Problem: 400 if the text is not JSON.
    """
    try:
        named = _array(limit + 1).decode(array)
    except msgspec.ValidationError:
        return None
    except RecursionError:
        raise invalid_json("JSON is nested too deeply") from None
    except (ValueError, msgspec.MsgspecError) as error:
        raise invalid_json(str(error)) from None
    return [element for element in msgspec.structs.astuple(named) if size(element)]


def parse_texts(array: bytes) -> list[str]:
    """Parse an array of texts. Bound their number first.

    Raises:
        Problem: 400 if the array is not JSON in UTF-8, or contains NUL or a lone surrogate.
        ValueError: an element is not a text.
    """
    try:
        texts = msgspec.json.decode(array, type=list[str])
    except msgspec.ValidationError:
        raise
    except (ValueError, msgspec.MsgspecError) as error:
        raise invalid_json(str(error)) from None
    if _has_nul(array):
        raise invalid_json(NUL_FOUND)
    return texts


def size(value: msgspec.Raw) -> int:
    """Return the number of bytes of unparsed JSON."""
    return memoryview(value).nbytes


def invalid_json(message: str, path: str = "") -> Problem:
    """Build the 400 for a body that is not JSON."""
    text = f"{path}: {message}" if path else message
    return Problem(HTTPStatus.BAD_REQUEST, "Invalid JSON", code=ErrorCode.INVALID_JSON, message=text)


def _has_nul(text: bytes) -> bool:
    return b"\\u0000" in text and NUL.search(text) is not None


def _refuse_duplicate_keys(pairs: list[tuple[str, Any]]) -> None:
    if len({key for key, _ in pairs}) < len(pairs):
        seen = set[str]()
        duplicate = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"Duplicate key {duplicate[:64]!r}")


_KEYS = json.JSONDecoder(object_pairs_hook=_refuse_duplicate_keys)


@cache
def _wrapper(key: str) -> msgspec.json.Decoder[Any]:
    """Return a decoder for an object that passes over all members but one."""
    fields = [("value", msgspec.Raw, ABSENT)]
    return msgspec.json.Decoder(msgspec.defstruct("Wrapper", fields, rename={"value": key}))


@cache
def _array(number: int) -> msgspec.json.Decoder[Any]:
    """Return a decoder for an array that keeps the first elements, and passes over further elements."""
    fields = [(f"element{index}", msgspec.Raw, ABSENT) for index in range(number)]
    return msgspec.json.Decoder(msgspec.defstruct("Elements", fields, array_like=True))


def _other_names(body: bytes, key: str, value: bytes, other: Callable[[str], None]) -> Steps[None]:
    """Call `other` with the name of each member but `key`, whose value is passed over."""
    depth = position = stepped = tokens = 0
    is_passed = False
    while position < len(body):
        token = TOKEN.match(body, position)
        assert token, "the pattern matches nothing, too"
        position, tokens = token.end(), tokens + 1
        if token.lastgroup == "unmatched":
            return
        if token.lastgroup == "opening":
            depth += 1
        elif token.lastgroup == "closing":
            depth -= 1
        elif token.lastgroup == "name" and depth == 1:
            name = msgspec.json.decode(b'"%b"' % token["text"], type=str)
            if name != key:
                other(name)
            elif is_passed or not body.startswith(value, position):
                # msgspec returns the last of several members.
                raise ValueError(f"Duplicate key {key!r}")
            else:
                position, is_passed = position + len(value), True
        if tokens % STEP_TOKENS == 0 or position - stepped > STEP_BYTES:
            stepped = position
            yield
