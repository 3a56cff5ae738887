"""Checking a large body leaves turns to further requests, and counts faults without keeping them all."""

import asyncio
import re
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from api import parsing, turns, validation
from api.audiences.schemas import Members
from api.auth import Caller
from api.consumers.schemas import ConsumerCreate, SearchParameters
from api.errors import MAX_FAULTS, Problem
from api.orders.schemas import OrderCreate
from api.turns import Steps, Turns
from api.validation import MAX_BATCH, MAX_IDS, Checker
from tests.seals import fixed_seal

CALLER = Caller(
    key_id="key", environment_id=1, mode="live", organization_id="org", scopes=frozenset(), seal=fixed_seal()
)
encode = msgspec.json.encode
Check = Callable[[Checker, bytes], Steps[Any]]


def check_consumers(checker: Checker, body: bytes) -> Steps[Any]:
    return checker.check_batch(body, "consumers", ConsumerCreate)


def check_orders(checker: Checker, body: bytes) -> Steps[Any]:
    return checker.check_batch(body, "orders", OrderCreate)


def check_members(checker: Checker, body: bytes) -> Steps[Any]:
    return checker.check_ids(body, "consumerIds", Members)


UNKNOWN_KEYS = encode([{f"k{number}": 1 for number in range(800)}] * MAX_BATCH)
KEYS_AROUND = {f"k{number}": 1 for number in range(100_000)}
LARGE = [
    pytest.param(check_consumers, UNKNOWN_KEYS, 800 * MAX_BATCH, MAX_BATCH, id="unknown keys"),
    pytest.param(check_consumers, encode(KEYS_AROUND | {"consumers": []}), 100_000, 100, id="keys around"),
    pytest.param(check_consumers, encode([{"metadata": {"a": "x" * 16_000}}] * MAX_BATCH), 0, MAX_BATCH, id="metadata"),
    pytest.param(
        check_orders, encode([{"amount": 1, "items": [{}] * 200}] * MAX_BATCH), 200_000, MAX_BATCH, id="lines"
    ),
    pytest.param(check_members, encode(KEYS_AROUND | {"consumerIds": []}), 100_000, 100, id="keys around ids"),
]


@pytest.mark.parametrize(("check", "body", "faults", "steps"), LARGE)
def test_large_body_gives_turns_to_other_requests(
    monkeypatch: pytest.MonkeyPatch, check: Check, body: bytes, faults: int, steps: int
) -> None:
    """With turns of no length, other requests run between any two steps."""
    monkeypatch.setattr(turns, "TURN_SECONDS", 0)
    checker, other_turns = Checker(CALLER), 0

    async def other() -> None:
        nonlocal other_turns
        while True:
            await asyncio.sleep(0)
            other_turns += 1

    async def both() -> None:
        running = asyncio.create_task(other())
        await Turns().run(check(checker, body))
        running.cancel()

    asyncio.run(both())
    assert other_turns >= steps
    assert (len(checker.faults.listed), checker.faults.count) == (min(faults, MAX_FAULTS), faults)


@pytest.mark.parametrize("waits", [False, True])
def test_large_bodies_take_a_single_turn_at_a_time(monkeypatch: pytest.MonkeyPatch, *, waits: bool) -> None:
    """Ten large requests delay a further request no longer than one of them does."""
    monkeypatch.setattr(turns, "TURN_SECONDS", 0)
    order: list[str] = []

    def steps(name: str) -> Steps[None]:
        for _ in range(3):
            order.append(name)
            yield

    async def other() -> None:
        for _ in range(10):
            await asyncio.sleep(0)
            order.append("other")

    async def all_of_them() -> None:
        shared = Turns()
        await asyncio.gather(*(shared.run(steps(name), waits=waits) for name in "abc"), other())

    asyncio.run(all_of_them())
    letters = "".join(name[0] for name in order)
    # The first turn of a small body waits for no other, because most requests need a single turn.
    assert letters.startswith("abc") != waits
    assert not re.search("[abc]{2}", letters[0 if waits else 4 : letters.rindex("o")])


def test_waiting_requests_go_on_one_at_a_time() -> None:
    """A hundred requests at once delay a further request no longer than one of them does."""
    order: list[str] = []

    async def request(shared: Turns, name: str) -> None:
        await shared.wait()
        order.append(name)

    async def other() -> None:
        for _ in range(3 * turns.PASSES):
            await asyncio.sleep(0)
            order.append("-")

    async def all_of_them() -> None:
        shared = Turns()
        await asyncio.gather(*(request(shared, name) for name in "abc"), other())

    asyncio.run(all_of_them())
    assert re.fullmatch(r"(-{20,}[abc]){3}-*", "".join(order))


@pytest.mark.parametrize("name", ["email", "externalId"])
def test_faulty_parameter_of_a_search_is_the_only_fault(name: str) -> None:
    checker = Checker(CALLER, is_query=True)
    checker.check_object({name: "x" * 256}, SearchParameters)
    assert [fault.field for fault in checker.faults.listed] == [name]


def test_item_larger_than_a_single_object_is_a_fault() -> None:
    checker = Checker(CALLER)
    body = encode([{"fullName": "A"}, {"metadata": {"a": "x" * 256 * 1024}}, {"fullName": "B"}])
    items = asyncio.run(Turns().run(check_consumers(checker, body)))
    assert [item and item.full_name for item in items] == ["A", None, "B"]
    assert [(fault.field, fault.message) for fault in checker.faults.listed] == [("[1]", "Must be at most 256 KiB")]


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (["a"] * MAX_IDS, None),
        (["a"] * (MAX_IDS + 1), "Must have at most 10000 items"),
        (["a", 5], "Must be text, not a number"),
        ("a", "Must be an array"),
        (None, "Must be an array"),
    ],
)
def test_list_of_ids_is_checked(ids: Any, message: str | None) -> None:
    checker = Checker(CALLER)
    members = asyncio.run(Turns().run(check_members(checker, encode({"consumerIds": ids}))))
    fields = {"Must be text, not a number": "consumerIds[1]"}
    assert [(fault.field, fault.message) for fault in checker.faults.listed] == (
        [(fields.get(message, "consumerIds"), message)] if message else []
    )
    assert (members and members.consumer_ids) == (None if message else ids)


def test_items_of_a_short_list_are_not_counted_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """The commas bound the number of the items. Splitting 10,000 ids would take as long as reading them."""
    counted: list[bytes] = []

    def elements(array: bytes, limit: int) -> list[msgspec.Raw] | None:
        counted.append(array)
        return parsing.elements(array, limit)

    monkeypatch.setattr(validation, "elements", elements)
    for number, is_counted in ((MAX_IDS, False), (MAX_IDS + 1, True)):
        del counted[:]
        asyncio.run(Turns().run(check_members(Checker(CALLER), encode({"consumerIds": ["a"] * number}))))
        assert bool(counted) == is_counted


@pytest.mark.parametrize("ids", [b'["\\u0000"]', b'["\\ud800"]', b'["\xff"]', b'["a"', b'["a",]'])
def test_list_of_ids_that_is_not_json_is_refused(ids: bytes) -> None:
    with pytest.raises(Problem, match="Invalid JSON"):
        asyncio.run(Turns().run(check_members(Checker(CALLER), b'{"consumerIds": %b}' % ids)))
