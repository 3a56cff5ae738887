"""The checksum in the secret of a key (infra/accounts/key_secrets.py)."""

import secrets
import string

import pytest

from infra.accounts.key_secrets import may_exist, new_secret

PREFIX = "sk_live_"


def test_new_secret_may_exist() -> None:
    assert may_exist(new_secret(PREFIX), PREFIX)


def test_secret_with_another_character_cannot_exist() -> None:
    secret = new_secret(PREFIX)
    for index in range(len(PREFIX), len(secret)):
        for character in string.ascii_letters:
            changed = secret[:index] + character + secret[index + 1 :]
            assert may_exist(changed, PREFIX) == (changed == secret)


def test_checksum_covers_the_prefix() -> None:
    assert not may_exist(new_secret("sk_live_").replace("sk_live_", "sk_test_"), "sk_test_")


def test_secret_of_an_earlier_release_may_exist() -> None:
    assert may_exist(PREFIX + secrets.token_urlsafe(32), PREFIX)


@pytest.mark.parametrize(
    "text", ["", "x", "x" * 42, "x" * 44, "x" * 48, "x" * 50, "x" * 5000, "é" * 43, "x" * 42 + "\n"]
)
def test_text_of_another_form_cannot_exist(text: str) -> None:
    assert not may_exist(PREFIX + text, PREFIX)
    assert not may_exist(text, PREFIX)
