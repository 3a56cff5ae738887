"""Parsing of `Prefer` headers never fails, whatever the input."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.consistency import MAX_WAIT_SECONDS, Preferences, parse_preferences

COUNTS = st.integers(0, 20) | st.integers(0, 10**30)
NAMES = st.text("abcdefghijklmnopqrstuvw!#$-", min_size=1).filter(lambda name: name not in {"wait", "handling"})
QUOTED = (
    st.lists(st.sampled_from(["a", " ", ", wait=5,", ";", "=", "\\", '"']))
    .map("".join)
    .map(lambda text: '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"')
)
OTHERS = st.builds("{}={}".format, NAMES, QUOTED | st.just("wait"))
"""Other preferences, some with `wait` or `handling` in quotes."""


@given(st.lists(st.text() | st.text('wait=hndlgsrc,;"\\ 0123456789')))
def test_any_prefer_header_is_parsed(values: list[str]) -> None:
    wait = parse_preferences(values).wait
    assert wait is None or 0 <= wait <= MAX_WAIT_SECONDS


@given(COUNTS, st.lists(OTHERS), st.lists(OTHERS), st.booleans())
def test_wait_is_found_beside_any_other_preference(
    count: int,
    before: list[str],
    after: list[str],
    joined: bool,  # noqa: FBT001 (a drawn value)
) -> None:
    parts = [*before, f"wait={count}", *after]
    expected = Preferences(min(count, MAX_WAIT_SECONDS))
    assert parse_preferences([", ".join(parts)] if joined else parts) == expected


@given(COUNTS, COUNTS, st.sampled_from(["wait={}, wait={}", "wait={};x=1,WAIT={}", 'wait="{}" , wait={}']))
def test_first_of_two_values_counts(first: int, second: int, form: str) -> None:
    both = form.format(first, second)
    assert (
        parse_preferences([both])
        == parse_preferences([f"wait={first}"])
        == parse_preferences([f"wait={first}", f"wait={second}"])
    )


def test_broken_quotes_affect_only_their_own_header() -> None:
    assert parse_preferences(['note="never closed, wait=5', "wait=3", "handling=strict"]) == Preferences(3, strict=True)


@pytest.mark.parametrize("start", ["a", "a=", "a=b", "wait", '"', "a;", '"\\', "a,", ""])
@pytest.mark.parametrize("end", ["!", '"', ","])
def test_header_of_any_length_is_parsed(start: str, end: str) -> None:
    """Backtracking would take hours."""
    assert parse_preferences([start + fill + end for fill in (" " * 500_000, start * 500_000)]) == Preferences()
