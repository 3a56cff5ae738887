"""Windows for the first searches of pages: no window leaves out a row that belongs to the page."""

from collections.abc import Sequence
from datetime import timedelta
from itertools import product
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ulid import ULID

from api.consumers import windows
from api.consumers.query import SortField
from api.consumers.windows import EPOCH, FIELDS, MAX_LISTS, FirstPages, Row, Spacing, Value, Walk, half_a_page
from infra.filters.clauses import Clause
from infra.ids import id_time
from infra.index.documents import name_order
from infra.wire import time

ENVIRONMENT, SIZE = 12, 5
TEXTS: tuple[SortField, ...] = ("email", "fullName")


def consumer_id(milliseconds: int, number: int) -> str:
    return f"cons_{ULID.from_int(milliseconds << 80 | number)}"


@st.composite
def lists(draw: st.DrawFn) -> tuple[Walk, list[Row]]:
    """Rows with few and many equal values, in the order of a walk."""
    sort_by = draw(st.sampled_from(get_args(SortField)))
    first, last = FIELDS[sort_by].limits
    values: st.SearchStrategy[Value] = st.integers(0, 6) | st.integers(first, last)
    if sort_by in TEXTS:
        values = st.text("Aabz ", min_size=1, max_size=4)
    if FIELDS[sort_by].not_null:
        values |= st.none()
    if draw(st.booleans()):
        values = st.sampled_from(draw(st.lists(values, min_size=1, max_size=3)))
    times = st.integers(0, 5) | st.integers(0, 100_000)
    pairs = draw(st.lists(st.tuples(values, times), min_size=1, max_size=25))
    rows = [Row(consumer_id(moment, number), value) for number, (value, moment) in enumerate(pairs)]
    walk = Walk(ENVIRONMENT, sort_by, draw(st.booleans()), draw(st.booleans()))
    return walk, in_order(walk, rows)


def in_order(walk: Walk, rows: Sequence[Row]) -> list[Row]:
    """Sort rows as a walk reads them: by value and id, nulls last in the list."""
    known = sorted((row for row in rows if row.value is not None), key=lambda row: (row.value, row.id))
    nulls = sorted((row for row in rows if row.value is None), key=lambda row: row.id)
    if not walk.ascending:
        known.reverse()
        nulls.reverse()
    return nulls + known if walk.from_end else known + nulls


def matches(row: Row, walk: Walk, window: Clause) -> bool:
    """Evaluate a window as OpenSearch does."""
    [(kind, content)] = window.items()
    if kind == "bool":
        [(occurrence, clauses)] = content.items()
        some, every = (of(matches(row, walk, clause) for clause in clauses) for of in (any, all))
        return {"filter": every, "should": some, "must_not": not some}[occurrence]
    if kind == "exists":
        assert content == {"field": FIELDS[walk.sort_by].not_null}
        return row.value is not None
    [(name, bounds)] = content.items()
    assert name in {"idTime", FIELDS[walk.sort_by].name}
    value: Any = id_time(row.id) if name == "idTime" else row.value
    if value is None:
        return False
    if name == "nameOrder":
        value = name_order(ENVIRONMENT, value)
    elif FIELDS[walk.sort_by].is_time and name != "idTime":
        value = time(EPOCH + timedelta(milliseconds=value))
    if kind == "term":
        return bool(value == bounds)
    compare = {"gte": value.__ge__, "lte": value.__le__, "gt": value.__gt__, "lt": value.__lt__}
    return all(compare[end](bound) for end, bound in bounds.items())


def at(walk: Walk, rows: Sequence[Row], number: int, previous: int = 0) -> Spacing:
    """Return the spacing at a row of a page."""
    return walk.spacing(rows[number], rows[half_a_page(number, len(rows))], previous)


def assert_complete(walk: Walk, window: Clause, rows: Sequence[Row]) -> None:
    """Assert that the window contains the next rows, as many as it contains."""
    contained = [row for row in rows if matches(row, walk, window)]
    assert contained == list(rows[: len(contained)])


@given(lists(), st.integers(0, 24), st.integers(0, 10_000))
def test_window_after_a_row_contains_the_next_rows(listed: tuple[Walk, list[Row]], place: int, previous: int) -> None:
    walk, rows = listed
    number = min(place, len(rows) - 1)
    for begin in range(max(0, number - SIZE), number + 1):
        page = rows[begin : begin + SIZE + 1]
        near = at(walk, page, number - begin, previous)
        for window in walk.windows(rows[number], near):
            assert_complete(walk, window, rows[number + 1 :])


@pytest.mark.parametrize("sort_by", ["totalOrders", "lastOrderAt"])
@pytest.mark.parametrize("ascending", [True, False])
@pytest.mark.parametrize("from_end", [True, False])
def test_windows_of_every_short_list_with_few_values_are_complete(
    sort_by: SortField, *, ascending: bool, from_end: bool
) -> None:
    walk = Walk(ENVIRONMENT, sort_by, ascending, from_end)
    for values in product([0, 1, 3] if sort_by == "totalOrders" else [0, 3, None], repeat=5):
        rows = in_order(walk, [Row(consumer_id(700 * number, 0), value) for number, value in enumerate(values)])
        for number in range(4):
            near = at(walk, rows[: number + 2], number)
            for window in walk.windows(rows[number], near):
                assert_complete(walk, window, rows[number + 1 :])
            assert_complete(walk, walk.first_window(rows[number], near), rows)


@given(lists(), st.integers(0, 24))
def test_window_of_a_first_page_contains_the_first_rows(listed: tuple[Walk, list[Row]], place: int) -> None:
    walk, rows = listed
    number = min(place, len(rows) - 1)
    near = at(walk, rows[: number + 1], number)
    for window in (walk.first_window(rows[number], near, factor) for factor in (1, windows.WIDER)):
        # The end of a window of texts is a guess, and may lie before the row.
        assert walk.sort_by in TEXTS or all(matches(row, walk, window) for row in rows[: number + 1])
        assert_complete(walk, window, rows)


@pytest.mark.parametrize(
    ("values", "previous", "width"),
    [
        ([9_000, 8_500, 4_000], 0, 8 * 4_500),
        ([7, 6], 5_000, 3_750),
        ([-20_000, 0], 0, 160_000),
        ([None, 3], 80, 60),
    ],
)
def test_width_follows_from_the_distance_of_rows(values: list[Value], previous: int, width: int) -> None:
    rows = [Row(consumer_id(number, 0), value) for number, value in enumerate(values)]
    assert at(by("totalOrderValue"), rows, len(rows) - 1, previous) == Spacing(values[-1], width)


def by(sort_by: SortField, *, ascending: bool = True) -> Walk:
    return Walk(ENVIRONMENT, sort_by, ascending=ascending, from_end=False)


def test_rows_with_the_same_value_have_a_window_of_ids() -> None:
    rows = [Row(consumer_id(1_000 * number, 0), 0) for number in range(6)]
    near = at(by("totalOrders"), rows, 4)
    assert near == Spacing(0, 1, 8 * 3_000)
    narrow, wide, *_ = by("totalOrders").windows(rows[4], near)
    for window, width in ((narrow, 24_000), (wide, 24_000 * windows.WIDER)):
        assert window["bool"]["filter"] == [
            {"range": {"totalOrders": {"gte": 0, "lte": 0}}},
            {"range": {"idTime": {"gte": 4_000, "lte": 4_000 + width}}},
        ]


END = Row(consumer_id(400, 0), 400), Spacing(400, 1_600)


def test_first_pages_of_a_limited_number_of_lists_are_remembered() -> None:
    first_pages, walk = FirstPages(), by("totalOrders")
    assert not [*first_pages.windows(b"a list", walk, 3)]
    first_pages.learn(b"a list", walk, 3, END, is_unfiltered=False)
    assert [*first_pages.windows(b"a list", walk, 3)] == [{"range": {"totalOrders": {"lte": 2_000}}}]
    for other in ((b"other", walk, 3), (b"a list", walk, 2), (b"a list", walk._replace(from_end=True), 3)):
        assert not [*first_pages.windows(*other)]
    for number in range(MAX_LISTS):
        first_pages.learn(b"%d" % number, walk, 3, END, is_unfiltered=False)
    assert not [*first_pages.windows(b"a list", walk, 3)]


def test_list_with_filters_begins_with_a_wider_window_of_the_list_without_filters() -> None:
    first_pages, walk = FirstPages(), by("totalOrders")
    first_pages.learn(b"all", walk, 3, END, is_unfiltered=True)
    [window] = first_pages.windows(b"some", walk, 3)
    assert window == {"range": {"totalOrders": {"lte": 400 + 1_600 * windows.WIDER}}}
    first_pages.learn(b"some", walk, 3, None, is_unfiltered=False)
    assert not [*first_pages.windows(b"some", walk, 3)]


def test_default_list_has_no_window_for_its_first_page() -> None:
    first_pages, walk = FirstPages(), by("createdAt", ascending=False)
    first_pages.learn(b"a list", walk, 3, END, is_unfiltered=True)
    assert not [*first_pages.windows(b"a list", walk, 3)]
