"""Texts as numbers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.consumers.text_windows import LAST, distance, far_end, folded


@pytest.mark.parametrize(
    ("text", "other"),
    [("emily.garcia12", "emily.garner7"), ("ann lee", "anna"), ("анна", "аня"), ("田中", "田村"), ("김민준", "박서준")],
)
def test_text_plus_a_distance_is_the_other_text(text: str, other: str) -> None:
    width = distance(text, other)
    assert far_end(text, width, ascending=True).rstrip(" Ѐ\u2e00") == other
    assert far_end(other, width, ascending=False).rstrip(" Ѐ\u2e00") == text


@pytest.mark.parametrize(
    ("text", "width", "end"),
    [
        # Marks and letters without a digit stay where nothing changes.
        ("o'neil-a@x", distance("o'neil-a@x", "o'neil-b@x"), "o'neil-b x" + " " * 14),
        ("zoe", distance("zoe", "ann"), LAST),
        ("ann", 0, f"ann{LAST}"),
    ],
)
def test_end_of_an_ascending_window(text: str, width: float, end: str) -> None:
    assert far_end(text, width, ascending=True) == end


def test_descending_window_ends_at_the_first_text() -> None:
    assert far_end("ann", distance("ann", "zoe"), ascending=False) == ""


@given(st.text(max_size=30), st.text(max_size=30), st.booleans())
def test_every_text_has_an_end_in_utf8(text: str, other: str, ascending: bool) -> None:  # noqa: FBT001 (given by hypothesis)
    text, other = folded(text), folded(other)
    assert far_end(text, 8 * float(distance(text, other)), ascending=ascending).encode() is not None


def test_names_are_compared_without_accents_and_case() -> None:
    assert folded("Émile O'NEIL") == "emile o'neil"
