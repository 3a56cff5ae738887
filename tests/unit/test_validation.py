"""Checking a large batch leaves turns to further requests, and counts faults without keeping them all."""

import asyncio

from api.auth import Caller
from api.consumers.schemas import NewConsumer
from api.errors import MAX_FAULTS
from api.validation import MAX_BATCH, Checker
from tests.seals import fixed_seal

CALLER = Caller(
    key_id="key", environment_id=1, mode="live", organization_id="org", scopes=frozenset(), seal=fixed_seal()
)


def test_batch_with_many_faults_gives_turns_to_other_tasks() -> None:
    """400,000 faults take about a second."""
    order: list[str] = []
    batch = [{f"k{number}": 1 for number in range(800)}] * MAX_BATCH

    async def check(name: str) -> Checker:
        checker = Checker(CALLER)
        await checker.check_batch(batch, "consumers", NewConsumer)
        order.append(f"{name} ended")
        return checker

    async def other() -> None:
        await asyncio.sleep(0)
        order.append("other ran")

    async def both() -> Checker:
        checker, _ = await asyncio.gather(check("batch"), other())
        return checker

    checker = asyncio.run(both())
    assert order == ["other ran", "batch ended"]
    assert (len(checker.faults.listed), checker.faults.count) == (MAX_FAULTS, 800 * MAX_BATCH)
