"""Unique values of a batch agree with a model: the state after the batch."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.unique_values import Claim, Settlement, groups, judge, settle

VALUES = st.none() | st.sampled_from("abcdef")


@st.composite
def batches(draw: st.DrawFn) -> tuple[dict[str, str | None], list[Claim]]:
    """Rows with distinct values, and a batch that changes some of them and adds others."""
    values = draw(st.lists(VALUES, max_size=6))
    stored = {f"row {n}": value if value not in values[:n] else None for n, value in enumerate(values)}
    changed = draw(st.lists(st.sampled_from(sorted(stored)), unique=True)) if stored else []
    claims = [Claim(one, stored[one], draw(VALUES)) for one in changed]
    claims += [Claim(after=draw(VALUES)) for _ in range(draw(st.integers(0, 2)))]
    return stored, draw(st.permutations(claims))


@given(batches())
def test_faults_are_those_of_the_state_after_the_batch(batch: tuple[dict[str, str | None], list[Claim]]) -> None:
    stored, claims = batch
    verdict = judge(claims, {value: one for one, value in stored.items() if value is not None})
    after = stored | {claim.id: claim.after for claim in claims if claim.id is not None}
    unchanged = {one: value for one, value in after.items() if value is not None and stored[one] == value}
    for index, claim in enumerate(claims):
        is_new = claim.after is not None and (claim.id is None or claim.after != claim.before)
        owners = [one for one, value in unchanged.items() if value == claim.after and one != claim.id]
        assert (index in verdict.taken) == bool(is_new and owners)
        earlier = [n for n in range(index) if claims[n].after == claim.after and claims[n].after != claims[n].before]
        assert verdict.repeated.get(index) == (earlier[0] if is_new and earlier and not owners else None)
    if not verdict.taken and not verdict.repeated:
        # Rows give up their values first; then no order of the other changes meets a taken value.
        held = {one: None if one in verdict.released else value for one, value in stored.items()}
        for number, claim in enumerate(claims):
            held[claim.id or f"new {number}"] = claim.after
            present = [value for value in held.values() if value is not None]
            assert len(present) == len(set(present))


COLUMNS = ("email", "externalId")
Stored = Mapping[str, Mapping[str, str | None]]
Items = Mapping[int, Mapping[str, Claim]]


@st.composite
def items_that_may_fail(draw: st.DrawFn) -> tuple[Stored, Items]:
    """Rows with distinct values in two columns, and items for rows, several for some of them, and for new rows."""
    stored: dict[str, dict[str, str | None]] = {f"row {n}": {} for n in range(draw(st.integers(0, 6)))}
    for column in COLUMNS:
        values = draw(st.permutations([*"abcdef"]))
        for row, value in zip(stored.values(), values, strict=False):
            row[column] = value
    items = {}
    for index in range(draw(st.integers(1, 8))):
        row_id = draw(st.none() | st.sampled_from(sorted(stored))) if stored else None
        before: Mapping[str, str | None] = stored[row_id] if row_id else dict.fromkeys(COLUMNS)
        items[index] = {
            column: Claim(row_id, before[column], draw(VALUES | st.just(before[column]))) for column in COLUMNS
        }
    return stored, items


def owners_of(stored: Stored) -> dict[str, dict[str, str]]:
    return {
        column: {value: row_id for row_id, row in stored.items() if (value := row[column]) is not None}
        for column in COLUMNS
    }


def state_after(stored: Stored, items: Items, indexes: set[int]) -> dict[str, dict[str, str | None]]:
    after = {row_id: dict(row) for row_id, row in stored.items()}
    for index in indexes:
        claims = items[index]
        after[claims["email"].id or f"new {index}"] = {column: claim.after for column, claim in claims.items()}
    return after


def is_possible(stored: Stored, items: Items, indexes: set[int]) -> bool:
    """Return whether the items can be stored together: no row twice, no value twice."""
    rows = [row_id for index in indexes if (row_id := items[index]["email"].id)]
    after = state_after(stored, items, indexes).values()
    values = [(column, row[column]) for row in after for column in COLUMNS if row[column] is not None]
    return len(set(rows)) == len(rows) and len(set(values)) == len(values)


@given(items_that_may_fail())
def test_items_fail_only_where_they_must(batch: tuple[Stored, Items]) -> None:
    stored, items = batch
    settlement = settled(items, owners_of(stored))
    failed = {conflict.item for conflict in settlement.conflicts}.union(settlement.repeats)
    kept = items.keys() - failed
    assert is_possible(stored, items, kept)
    # No failed item could be stored beside the others. A later item of a row can give up a value too late for this.
    rows = Counter(claims["email"].id for claims in items.values())
    late = {conflict.item for conflict in settlement.conflicts if conflict.owner and rows[conflict.owner] > 1}
    for index in failed - late:
        assert not is_possible(stored, items, {*kept, index})
    for index in settlement.repeats:
        assert any(other < index and items[other]["email"].id == items[index]["email"].id for other in kept)
    for conflict in settlement.conflicts:
        assert (conflict.owner is None) != (conflict.taker is None)
        assert conflict.taker is None or conflict.taker in kept
    # After the releases, no order of the changes meets a taken value.
    for column in COLUMNS:
        held = {row_id: row[column] for row_id, row in stored.items() if row_id not in settlement.released[column]}
        after = state_after(stored, items, kept)
        for row_id, row in after.items():
            held[row_id] = row[column]
            present = [value for value in held.values() if value is not None]
            assert len(present) == len(set(present))


@given(items_that_may_fail())
def test_settled_items_are_a_batch_without_faults(batch: tuple[Stored, Items]) -> None:
    """If no row is repeated and `judge` finds no fault, every item is stored."""
    stored, items = batch
    rows = [claims["email"].id for claims in items.values() if claims["email"].id]
    verdicts = [judge([claims[column] for claims in items.values()], owners_of(stored)[column]) for column in COLUMNS]
    settlement = settled(items, owners_of(stored))
    if len(set(rows)) == len(rows) and not any(verdict.taken or verdict.repeated for verdict in verdicts):
        assert not settlement.conflicts
        released = [sorted(settlement.released[column]) for column in COLUMNS]
        assert released == [sorted(verdict.released) for verdict in verdicts]


def settled(items: Items, owners: Mapping[str, Mapping[str, str]]) -> Settlement:
    """Settle the items, without claims for values that stay."""
    rows = {index: row_id for index, claims in items.items() if (row_id := claims["email"].id)}
    changes = {
        index: {column: claim for column, claim in claims.items() if claim.after != claim.before}
        for index, claims in items.items()
    }
    return settle(changes, rows, owners)


def claims(row_id: str | None = None, email: tuple[str | None, str | None] = (None, None), key: Any = None) -> Any:
    return {"email": Claim(row_id, *email), "externalId": Claim(row_id, key if row_id else None, key)}


@pytest.mark.parametrize(
    ("items", "failed"),
    [
        # A taken value: the next item with the other value of the failed item is stored.
        ([claims(email=(None, "a"), key="new"), claims(key="new"), claims(key="new")], {0, 2}),
        # An item that fails for its value makes no repeat of its row fail.
        ([claims("row b", ("b", "a")), claims("row b", ("b", "e")), claims("row b", ("b", "f"))], {0, 2}),
        # Values that move within the batch, in a ring.
        ([claims("row b", ("b", "c")), claims("row c", ("c", "b"))], set()),
        # A row in the ring keeps its value, so none can move.
        ([claims("row b", ("b", "c")), claims("row c", ("c", "a")), claims("row d", ("d", "b"))], {0, 1, 2}),
        # The second item with a value is stored, because the first waits for a row that keeps its value.
        ([claims(email=(None, "z"), key="k c"), claims("row c", ("c", "a"), "k c"), claims(email=(None, "z"))], {0, 1}),
    ],
)
def test_items_that_fail(items: list[Any], failed: set[int]) -> None:
    owners = {"email": {name: f"row {name}" for name in "abcd"}, "externalId": {"k c": "row c"}}
    settlement = settled(dict(enumerate(items)), owners)
    assert {conflict.item for conflict in settlement.conflicts}.union(settlement.repeats) == failed


def test_long_chains_and_rings_are_groups() -> None:
    size = 5_000
    chain = {item: [item + 1] for item in range(size)}
    assert list(groups(chain)) == [[item] for item in reversed(range(size))]
    assert list(groups(chain | {size - 1: [0]})) == [list(range(size))]
