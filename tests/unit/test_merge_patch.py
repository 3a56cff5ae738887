"""Merge patches of metadata."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

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
