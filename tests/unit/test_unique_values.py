"""Unique values of a batch agree with a model: the state after the batch."""

from hypothesis import given
from hypothesis import strategies as st

from infra.unique_values import Claim, judge

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
