"""All checks, in the order of the output, and their faults as lines for `make up` and `consumers migrate`."""

from collections.abc import Iterator

from infra.doctor import (
    addresses,
    checks,
    clocks,
    cluster,
    connections,
    encryption,
    floors,
    nodes,
    ownership,
    postgresql,
    redis_policy,
    releases,
    roles,
    shards,
    versions,
)
from infra.doctor.checks import Check, Finding
from infra.settings import Settings

ALL: tuple[Check, ...] = (
    *connections.CHECKS,
    *versions.CHECKS,
    *encryption.CHECKS,
    *clocks.CHECKS,
    *postgresql.CHECKS,
    *roles.CHECKS,
    *redis_policy.CHECKS,
    *ownership.CHECKS,
    *releases.CHECKS,
    *floors.CHECKS,
    *nodes.CHECKS,
    *cluster.CHECKS,
    *shards.CHECKS,
    *addresses.CHECKS,
)


OF_OPERATION: frozenset[Check] = frozenset({roles.one_role})
"""Checks by the role of the running processes: the owner of the tables, who migrates, may not see these processes."""


def fault_lines(settings: Settings) -> Iterator[str]:
    """Run all checks but `OF_OPERATION`; yield the lines of the faults, and nothing without faults.

    A check that fails by itself yields a line as well: `make up` and `consumers migrate` have done their work by then.
    """
    for result in checks.run((check for check in ALL if check not in OF_OPERATION), settings):
        if not result.ok:
            yield f"fault  {result.check}"
            for finding in result.findings:
                if not finding.is_warning:
                    yield from lines(finding)


def lines(finding: Finding) -> Iterator[str]:
    """Yield a line for the problem, and an indented line for the advice."""
    yield f"         {finding.problem}"
    yield f"           {finding.advice}"
