"""Unique values of a batch: the state after the batch counts, so values can be freed, moved and swapped within it.

The index of the database compares row by row, in an order that a statement does not decide. A row whose value another
row of the batch takes over therefore gives up its value first (`Verdict.released`), in a statement of its own.
"""

from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple


class Claim(NamedTuple):
    """The value of an item before and after the batch. A value is compared by its key."""

    id: str | None = None
    """The id of the stored row; None for a new row."""
    before: str | None = None
    after: str | None = None


class Verdict(NamedTuple):
    """The result for each item with a fault, by its index in the batch, and the rows that give up their value."""

    taken: Mapping[int, str]
    """The id of the row that has the value and keeps it."""
    repeated: Mapping[int, int]
    """The index of the first item that takes the same value."""
    released: Sequence[str]
    """The ids of the rows that must give up their value before it is taken."""


def judge(claims: Sequence[Claim], owners: Mapping[str, str]) -> Verdict:
    """Decide which items of a batch can have their values.

    Args:
        claims: for each item. No two items have the same id.
        owners: for values that items take, the id of the row that has the value before the batch.
    """
    after = {claim.id: claim.after for claim in claims if claim.id is not None}
    taken: dict[int, str] = {}
    repeated: dict[int, int] = {}
    released: dict[str, None] = {}
    first: dict[str, int] = {}
    for index, (own_id, before, value) in enumerate(claims):
        if value is None or (own_id is not None and value == before):
            continue
        owner = owners.get(value)
        if owner is not None and owner != own_id:
            if owner not in after or after[owner] == value:
                taken[index] = owner
                continue
            released[owner] = None
        if first.setdefault(value, index) != index:
            repeated[index] = first[value]
    return Verdict(taken, repeated, sorted(released))


class Conflict(NamedTuple):
    """The reason why an item cannot be stored."""

    item: int
    column: str
    owner: str | None
    """The id of the row that keeps the value; None if an item of the batch takes the value."""
    taker: int | None
    """The index of this item."""


class Settlement(NamedTuple):
    """The items of a batch that fail, and the rows that give up their values."""

    conflicts: Sequence[Conflict]
    repeats: Sequence[int]
    """Items that would change a row which an earlier item of the batch changes."""
    released: Mapping[str, Sequence[str]]
    """By column: the ids of the rows that must give up their value before it is taken."""


def settle(
    items: Mapping[int, Mapping[str, Claim]], rows: Mapping[int, str], owners: Mapping[str, Mapping[str, str]]
) -> Settlement:
    """Decide which items of a batch are stored if the others fail alone.

    An item that fails takes no value, and its row keeps the old values. So an item is stored only together with the
    items whose rows give up its values. Of several items with a value or a row, the first that can be stored wins. A
    later item of a row is decided after all other items, so it gives up its values too late for them.

    Args:
        items: by index in the batch, the claims by column. A column without a claim keeps its value.
        rows: by index, the ids of stored rows. Several items may have the same row.
        owners: by column, for values that items take, the id of the row that has the value before the batch.
    """
    settling = _Settling(items, rows, owners)
    queues: dict[str | int, deque[int]] = {}
    for index in items:
        queues.setdefault(rows.get(index, index), deque()).append(index)
    turn = list(queues)
    while turn:
        indexes = [queues[row].popleft() for row in turn]
        settling.decide(indexes)
        failed = [row for row, index in zip(turn, indexes, strict=True) if index not in settling.stored]
        turn = [row for row in failed if queues[row]]
    repeats = sorted(index for queue in queues.values() for index in queue)
    released = {column: sorted(ids) for column, ids in settling.released.items()}
    return Settlement(settling.conflicts, repeats, released)


class _Settling:
    """The state of `settle`. Each item is decided once, so the work grows with the number of items."""

    def __init__(
        self, items: Mapping[int, Mapping[str, Claim]], rows: Mapping[int, str], owners: Mapping[str, Mapping[str, str]]
    ) -> None:
        self._items, self._rows, self._owners = items, rows, owners
        self.conflicts = list[Conflict]()
        self.stored = set[int]()
        self.released: dict[str, set[str]] = {column: set() for column in owners}
        self._item_of_row = dict[str, int]()
        """The item of each row that was decided last, or is decided now."""
        self._takers = dict[tuple[str, str], int]()
        """By column and value: the stored item that takes the value."""

    def decide(self, indexes: Sequence[int]) -> None:
        """Store or refuse items, each of another row."""
        self._item_of_row |= {self._rows[index]: index for index in indexes if index in self._rows}
        for group in groups({index: self._givers(index) for index in indexes}):
            taken = [(column, value, owner) for index in group for column, value, owner in self._taken(index)]
            is_repeated = len({(column, value) for column, value, _ in taken}) < len(taken)
            together = frozenset(group)
            if is_repeated or any(conflict for index in group for conflict in self._conflicts(index, together)):
                self.conflicts += [conflict for index in group for conflict in self._conflicts(index)]
                continue
            self.stored.update(group)
            for index in group:
                self._takers |= {(column, value): index for column, value, _ in self._taken(index)}
            for column, _, owner in taken:
                if owner:
                    self.released[column].add(owner)

    def _taken(self, index: int) -> Iterator[tuple[str, str, str | None]]:
        """Yield column, value and other owner of each value that the item takes."""
        for column, claim in self._items[index].items():
            if claim.after is not None and (claim.id is None or claim.after != claim.before):
                owner = self._owners[column].get(claim.after)
                yield column, claim.after, owner if owner != claim.id else None

    def _givers(self, index: int) -> list[int]:
        """Return the items without which the item cannot have its values."""
        givers = (self._giver(column, value, owner) for column, value, owner in self._taken(index))
        return [giver for giver in givers if giver is not None]

    def _giver(self, column: str, value: str, owner: str | None) -> int | None:
        """Return the item by which the owner gives up a value."""
        index = self._item_of_row.get(owner) if owner else None
        claim = self._items[index].get(column) if index is not None else None
        return index if claim and claim.after != value else None

    def _conflicts(self, index: int, together: Collection[int] = ()) -> Iterator[Conflict]:
        """Yield the conflicts of an item with stored items, and with rows that keep a value.

        Args:
            index: of the item.
            together: items that are stored together with the item.
        """
        for column, value, owner in self._taken(index):
            taker = self._takers.get((column, value))
            if taker is not None:
                yield Conflict(index, column, None, taker)
            elif owner:
                giver = self._giver(column, value, owner)
                if giver not in self.stored and giver not in together:
                    yield Conflict(index, column, owner, None)


def groups(needs: Mapping[int, Sequence[int]]) -> Iterator[list[int]]:
    """Yield items that need each other, directly or through others, as a group; each group after the groups it needs.

    These are the strongly connected components of a graph, by Tarjan's algorithm. Its recursion is a list here, because
    a chain of 500 items exceeds the limit of Python.

    Args:
        needs: by item, the items that it needs. An item that is not a key is ignored.
    """
    numbers, lowest = dict[int, int](), dict[int, int]()
    path, calls = list[int](), list[tuple[int, Iterator[int]]]()

    def call(item: int) -> None:
        numbers[item] = lowest[item] = len(numbers)
        path.append(item)
        calls.append((item, iter(needs[item])))

    for root in needs:
        if root not in numbers:
            call(root)
        while calls:
            item, following = calls[-1]
            for needed in following:
                if needed in needs and needed not in numbers:
                    call(needed)
                    break
                lowest[item] = min(lowest[item], numbers.get(needed, lowest[item]))
            else:
                calls.pop()
                if calls:
                    caller = calls[-1][0]
                    lowest[caller] = min(lowest[caller], lowest[item])
                if lowest[item] == numbers[item]:
                    group = [path.pop()]
                    while group[-1] != item:
                        group.append(path.pop())
                    numbers.update(dict.fromkeys(group, len(needs)))  # above all others: no longer on the path
                    yield sorted(group)
