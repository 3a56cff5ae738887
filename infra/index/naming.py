"""Names of indices and aliases."""


def read_alias(prefix: str) -> str:
    """What readers search: the live generation without its tombstones."""
    return f"{prefix}-read"


def index_name(prefix: str, number: int) -> str:
    return f"{prefix}-{number:06d}"


def write_alias(index: str) -> str:
    """What the drain writes to: should the index vanish, a write fails instead of creating another."""
    return f"{index}-write"
