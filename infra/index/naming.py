"""Names of indices and aliases."""


def read_alias(prefix: str) -> str:
    """Return the alias for readers: the live generation, without tombstones."""
    return f"{prefix}-read"


def index_name(prefix: str, number: int) -> str:
    """Return the index of a generation."""
    return f"{prefix}-{number:06d}"


def write_alias(index: str) -> str:
    """Return the alias for writers. If the index is lost, a write fails and creates no index."""
    return f"{index}-write"
