"""Check of e-mail addresses of earlier releases that are not stored under their key (`infra/database/addresses.py`)."""

from collections.abc import Iterator

from infra.database import addresses
from infra.doctor.checks import Check, Finding, Servers

SHOWN = 5
"""Pairs of consumers in the output."""


def are_unique(servers: Servers) -> Iterator[Finding]:
    """Find consumers of one environment with one address in two spellings, such as a domain in Punycode."""
    with servers.engine.connect() as connection:
        owned = [(address, addresses.owner(connection, address)) for address in addresses.misplaced(connection)]
    pairs = [f"{address.id} and {owner}" for address, owner in owned if owner not in {None, address.id}]
    if pairs:
        listed = "; ".join(pairs[:SHOWN])
        yield Finding(
            f"{len(pairs)} consumers have the e-mail address of another consumer in another spelling ({listed})",
            "Merge them, or change one address of each pair: both are kept until then, and a search finds both",
        )
    if len(pairs) < len(owned):
        yield Finding(
            f"{len(owned) - len(pairs)} e-mail addresses of the release before are not compared in every spelling",
            "Run `consumers migrate` again when no process of the release before is left",
        )


CHECKS: tuple[Check, ...] = (are_unique,)
