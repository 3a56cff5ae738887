"""Values of documents for analysts: the domain of the address, the country of the number, and attributes.

None of these is looked up: live questions group by them (`api/analytics/`). An attribute is `path NUL value`, for each
text, number and boolean in metadata. A question can reach only those that the organization has declared.
"""

MAX_ATTRIBUTES = 100
"""Attributes of a document."""
MAX_LENGTH = 128
"""Characters of a path and value together. A longer value is left out."""
PREFIX_LENGTH = len("metadata.")


def attribute(path: str, value: str) -> str | None:
    """Return the attribute for a value in metadata, or None if it is too long.

    >>> attribute("metadata.loyalty.points", "1.50") == "loyalty.points" + chr(0) + "1.50"
    True
    """
    text = f"{path[PREFIX_LENGTH:]}\0{value}"
    return text if len(text) <= MAX_LENGTH else None


def email_domain(key: str | None) -> str | None:
    """Return the domain in the key of an address."""
    return key.rpartition("@")[2] or None if key else None
