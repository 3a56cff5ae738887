"""Merge patches of metadata."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from infra.fields import METADATA_BYTES
from infra.merge_patch import merge


def deeper(frames: int, call: Callable[[], Any]) -> Any:
    """Call with as many more frames on the stack."""
    return call() if frames == 0 else deeper(frames - 1, call)


@pytest.mark.parametrize("frames", range(0, 140, 7))
def test_patch_decoded_on_a_shallower_stack_is_too_deep(frames: int) -> None:
    """The decoder accepts a nesting that, a few frames deeper, the encoder cannot follow within the recursion limit."""
    patch = msgspec.Raw(b'{"a":' + b"[" * 850 + b"]" * 850 + b"}")
    with pytest.raises(ValueError, match="levels deep"):
        deeper(frames, lambda: merge(None, patch))


def test_spaces_in_the_text_of_the_database_do_not_count() -> None:
    stored = '{"a": [' + ", ".join(["1"] * 8000) + "]}"
    assert len(stored) > METADATA_BYTES
    assert merge(stored, msgspec.Raw(b'{"b":1}')) == msgspec.Raw(
        stored.replace('{"a": ', '{"a":')[:-1].encode() + b',"b":1}'
    )


@pytest.mark.parametrize("letters", [METADATA_BYTES, 200_000])
def test_too_large_result_is_refused(letters: int) -> None:
    with pytest.raises(ValueError, match="16 KiB"):
        merge('{"a": 1}', msgspec.Raw(b'{"b":"%b"}' % (b"x" * letters)))
