"""The cost of a query for OpenSearch, estimated from the query alone.

The unit is about 0.1 ms of processor time: a term looked up in every segment of the index.
"""

from typing import Any

from infra.filters.clauses import Clause
from infra.filters.conditions import SCAN_CLAUSES, SCAN_LENGTH
from infra.index.conversion import FORMER_FIELDS
from infra.index.terms import CODE_LENGTH

MAX_CLAUSES = 1000
"""Clauses of a query that OpenSearch accepts; its limit is 1,024. The cost of a query without typos is at least the
number of its clauses."""
VALUES_PER_UNIT = 10
"""Values of a list are looked up together, in the order of the index."""
UNITS_PER_LETTER, TWO_TYPOS_FROM = 3, 8
"""OpenSearch makes an automaton of a word with typos. For two typos, this takes up to 0.3 ms per letter."""


def cost(query: Clause) -> int:
    """Return the cost of a query.

    Args:
        query: as sent to OpenSearch, such as `{"bool": {"filter": […]}}`.
    """
    [(kind, body)] = query.items()
    match kind:
        case "bool":
            return sum(cost(part) for parts in body.values() if isinstance(parts, list) for part in parts)
        case "dis_max":
            return sum(cost(part) for part in body["queries"])
        case "constant_score":
            return cost(body["filter"])
        case _:
            return _leaf(kind, body)


def _leaf(kind: str, body: dict[str, Any]) -> int:
    if not body:
        return 1
    field, content = next(iter(body.items()))
    if field in FORMER_FIELDS:
        return 0
    match kind:
        case "terms":
            return 1 + len(content) // VALUES_PER_UNIT
        case "regexp":
            letters = len(content["value"].partition("]*")[2].replace("\\", "")) - len(".*")
            return SCAN_CLAUSES if letters < SCAN_LENGTH else CODE_LENGTH + letters
        case "multi_match" if "fuzziness" in body:
            letters = len(body["query"])
            return 1 + (UNITS_PER_LETTER * letters if letters >= TWO_TYPOS_FROM else 0)
        case _:
            return 1
