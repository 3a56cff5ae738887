"""JSON merge patches (RFC 7396) for stored metadata."""

from typing import Any

import msgspec

from infra import fields


def merged(stored: str | None, patch: dict[str, Any]) -> msgspec.Raw:
    """Apply a JSON merge patch (RFC 7396) to stored metadata. What it does not name stays as it is written: numbers
    of the database's are longer than Python's.

    Raises:
        ValueError: what it makes is past a limit of metadata.
    """
    result = msgspec.Raw(msgspec.json.encode(_merged(msgspec.Raw((stored or "{}").encode()), patch)))
    fields.metadata(msgspec.json.decode(result))
    return result


def _merged(target: msgspec.Raw | None, patch: Any, depth: int = 1) -> Any:
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
            result[name] = _merged(result.get(name), value, depth + 1)
    return result
