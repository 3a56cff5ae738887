"""Sealed texts: opened only where they were sealed for, deterministic, and without anything in clear."""

import string
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.answers import etag, etags, is_match, is_none_match
from api.consistency import decode_token, encode_token
from api.freshness import TransactionId
from infra.database.sealing_keys import SealingKey
from infra.seals import Keyring, Purpose, SealError
from tests.seals import OTHER_SECRET, SECRET, fixed_seal, upgraded_seal

CONSUMER = "cons_01JBK3Q8X5W5V0B6T1R2M3N4P5"
environments = st.integers(1, 2**31 - 1)
purposes = st.sampled_from(["token", "etag", "cursor"])
contents = st.binary(min_size=1, max_size=100)
names = st.binary(max_size=40)
versions = st.integers(1, 2**62)
numbers = st.integers(0, 2**63 - 1)


@given(environments, purposes, contents, names)
def test_sealed_text_opens_to_its_content(environment: int, purpose: Purpose, content: bytes, name: bytes) -> None:
    seal = fixed_seal(environment)
    text = seal.seal(purpose, content, name)
    assert seal.open(purpose, text, name) == content
    assert text == fixed_seal(environment).seal(purpose, content, name)
    assert set(text) <= set(string.ascii_letters + string.digits + "-_")


@given(purposes, contents, names, st.data())
def test_text_modified_anywhere_is_refused(purpose: Purpose, content: bytes, name: bytes, data: st.DataObject) -> None:
    text = fixed_seal().seal(purpose, content, name)
    at = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.sampled_from(sorted(set(string.printable) - {text[at]})))
    for modified in (text[:at] + other + text[at + 1 :], text[:at], text + other):
        with pytest.raises(SealError):
            fixed_seal().open(purpose, modified, name)


@given(st.text(max_size=200) | st.text(string.ascii_letters + string.digits + "-_", max_size=200))
def test_any_other_text_is_refused(text: str) -> None:
    with pytest.raises(SealError):
        fixed_seal().open("token", text)


@given(st.tuples(environments, purposes, names), st.tuples(environments, purposes, names), contents)
def test_text_sealed_for_something_else_is_refused(
    one: tuple[int, Purpose, bytes], other: tuple[int, Purpose, bytes], content: bytes
) -> None:
    environment, purpose, name = one
    text = fixed_seal(environment).seal(purpose, content, name)
    if one != other:
        with pytest.raises(SealError):
            fixed_seal(other[0]).open(other[1], text, other[2])


@given(purposes, contents)
def test_text_of_a_lost_key_is_refused(purpose: Purpose, content: bytes) -> None:
    text = fixed_seal().seal(purpose, content)
    for key in (SealingKey(1, OTHER_SECRET, None), SealingKey(2, SECRET, None)):
        with pytest.raises(SealError):
            Keyring([key]).of(1).open(purpose, text)


@given(purposes, contents)
def test_newest_key_seals_and_every_key_opens(purpose: Purpose, content: bytes) -> None:
    old, new = SealingKey(1, SECRET, None), SealingKey(2, OTHER_SECRET, None)
    before, after = fixed_seal(), Keyring([old, new]).of(1)
    assert after.open(purpose, before.seal(purpose, content)) == content
    assert after.seal_with_each_key(purpose, content) == [
        Keyring([new]).of(1).seal(purpose, content),
        before.seal(purpose, content),
    ]
    assert after.seal(purpose, content) == Keyring([new]).of(1).seal(purpose, content)


@given(numbers, numbers, st.uuids(), environments)
def test_token_decodes_to_its_transaction(xid: int, lsn: int, epoch: UUID, environment: int) -> None:
    seal = fixed_seal(environment)
    transaction = TransactionId(str(xid), str(epoch), f"{lsn >> 32:X}/{lsn % 2**32:X}")
    token = encode_token(seal, transaction)
    assert decode_token(seal, token) == transaction
    with pytest.raises(ValueError, match="Invalid token"):
        decode_token(fixed_seal(environment + 1), token)


@given(numbers, st.uuids())
def test_token_is_readable_by_the_release_before_for_a_day(xid: int, epoch: UUID) -> None:
    until = datetime.now(UTC) + timedelta(days=1)
    seal = Keyring([SealingKey(1, SECRET, None, until)]).of(1)
    token = encode_token(seal, TransactionId(str(xid), str(epoch), "0/1"))
    assert int.from_bytes(seal.open("token", token)) == xid
    assert decode_token(seal, token) == TransactionId(str(xid))


@given(st.text() | st.integers(0).map(lambda number: f"1-{number}"))
def test_token_in_any_other_format_is_refused(token: str) -> None:
    for seal in (fixed_seal(), upgraded_seal(remaining=-timedelta(seconds=1))):
        with pytest.raises(ValueError, match="Invalid token"):
            decode_token(seal, token)


@given(st.text() | st.integers().map(lambda number: f"1-{number}") | st.integers().map(str))
def test_unsealed_token_is_accepted_for_a_day_after_an_upgrade(token: str) -> None:
    prefix, _, number = token.partition("-")
    is_token = prefix == "1" and number.isascii() and number.isdigit() and len(number) < 20 and int(number) < 2**63
    if is_token:
        assert decode_token(upgraded_seal(), token) == TransactionId(number)
    else:
        with pytest.raises(ValueError, match="Invalid token"):
            decode_token(upgraded_seal(), token)


@given(versions, versions, environments)
def test_etag_is_the_same_only_for_the_same_state(version: int, other: int, environment: int) -> None:
    tag = etag(fixed_seal(environment), CONSUMER, version)
    assert (
        tag == etag(fixed_seal(environment), CONSUMER, version) == etags(fixed_seal(environment), CONSUMER, version)[0]
    )
    assert (tag == etag(fixed_seal(environment), CONSUMER, other)) == (version == other)
    assert tag != etag(fixed_seal(environment), CONSUMER[:-1] + "6", version)
    assert tag != etag(fixed_seal(environment + 1), CONSUMER, version)


@pytest.mark.parametrize("version", [1, 1_048_576])
def test_unsealed_etag_matches_for_a_day_after_an_upgrade(version: int) -> None:
    unsealed = {f'"{version}"'}
    for seal, expected in ((upgraded_seal(), True), (upgraded_seal(remaining=-timedelta(seconds=1)), False)):
        current = etags(seal, CONSUMER, version)
        assert is_match(unsealed, current) == is_none_match(unsealed, current) == expected
        assert not is_match({f'"{version + 1}"'}, current)
        assert current[0] == etag(seal, CONSUMER, version)


def test_etag_of_an_older_key_matches() -> None:
    older = {etag(fixed_seal(), CONSUMER, 5)}
    rotated = Keyring([SealingKey(1, SECRET, None), SealingKey(2, OTHER_SECRET, None)]).of(1)
    assert is_match(older, etags(rotated, CONSUMER, 5))
    assert not is_match(older, etags(rotated, CONSUMER, 6))
