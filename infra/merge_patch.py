"""JSON merge patches (RFC 7396) for stored metadata."""

from typing import Any

import msgspec

from infra import fields
from infra.wire import collection_paused, decode


def merge(stored: str | None, patch: msgspec.Raw) -> msgspec.Raw:
    """Apply a merge patch, an object, to stored metadata.

    Members without a change keep their exact text, because PostgreSQL stores longer numbers than Python's floats.

    Raises:
        ValueError: the result exceeds a limit of metadata.
    """
    try:
        with collection_paused():
            merged = _merge(msgspec.Raw(stored.encode()) if stored else None, decode(patch))
            result = msgspec.json.encode(merged)
        # Spaces in the text of the database at most double the size.
        if len(result) > 2 * fields.METADATA_BYTES:
            raise ValueError(fields.TOO_LARGE)
        fields.metadata(decode(result) if stored else merged)
    except RecursionError:  # decoded with fewer frames on the stack, so the limit of the interpreter is reached here
        raise ValueError(fields.TOO_DEEP) from None
    return msgspec.Raw(result)


def _merge(target: msgspec.Raw | None, patch: Any, depth: int = 1) -> Any:
    if not isinstance(patch, dict):
        return patch
    if depth > fields.METADATA_DEPTH:
        raise ValueError(fields.TOO_DEEP)
    result: dict[str, Any] = {}
    if target and bytes(target).startswith(b"{"):
        result = msgspec.json.decode(target, type=dict[str, msgspec.Raw])
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = _merge(result.get(name), value, depth + 1)
    return result
