"""Names of indices and aliases, and the routing of documents to shards."""


def read_alias(prefix: str) -> str:
    """Return the alias for readers: the live generation, without tombstones."""
    return f"{prefix}-read"


def index_name(prefix: str, number: int) -> str:
    """Return the index of a generation."""
    return f"{prefix}-{number:06d}"


def write_alias(index: str) -> str:
    """Return the alias for writers. If the index is lost, a write fails and creates no index."""
    return f"{index}-write"


def routing(environment_id: int) -> str:
    """Return the routing value of an environment: writes and searches with it use the environment's shards only.

    The value is the same for every generation. OpenSearch derives the shards from it and from the settings of the
    index, so a search through the read alias uses the right shards also at the moment of a swap.
    """
    return str(environment_id)
