"""SELECT lists made from row types, so that the columns and the fields of a row cannot disagree."""

from collections.abc import Sequence


def select_list(fields: Sequence[str], alias: str, **expressions: str) -> str:
    """Return the SELECT list of a row type.

    Args:
        fields: of the named tuple, each the name of a column. The list has the same order.
        alias: of the table in the statement.
        expressions: by field, the SQL expression for a value other than the plain column.
    """
    assert expressions.keys() <= set(fields)
    return ", ".join(f"{expressions[name]} AS {name}" if name in expressions else f"{alias}.{name}" for name in fields)
