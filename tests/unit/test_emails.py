"""Addresses in several spellings have one key, and are stored so that the database compares their keys."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from infra import emails, fields

SAME = [
    ("ann@bücher.de", ["ann@xn--bcher-kva.de", "ann@BÜCHER.DE", "ANN@XN--BCHER-KVA.de", "ann@bu\u0308cher.de"]),
    (
        "ann@shop.example",
        ["ａｎｎ＠ｓｈｏｐ．ｅｘａｍｐｌｅ", "ann@shop。example", "ann@shop｡example", "Ann﹫SHOP．example"],
    ),
    ("i@shop.example", ["İ@shop.example", "i\u0307@shop.example", "I@shop.example"]),
    ("strasse@shop.example", ["straße@shop.example", "STRASSE@shop.example", "STRAẞE@shop.example"]),
    ("οδοσ@shop.example", ["ΟΔΟΣ@shop.example", "οδος@shop.example"]),
    ("é@shop.example", ["e\u0301@shop.example", "É@shop.example", "E\u0301@shop.example"]),
    ("kelvin@shop.example", ["\u212aelvin@shop.example", "KELVIN@shop.example", "ｋelvin@shop.example"]),
    ("figaro@shop.example", ["ﬁgaro@shop.example"]),
    ("ångström@shop.example", ["\u212bngström@shop.example", "A\u030angstro\u0308m@shop.example"]),
    ("ꭰ@shop.example", ["Ꭰ@shop.example"]),
    ("a@例え.テスト", ["a@xn--r8jz45g.xn--zckzah", "A@例え。テスト"]),
    ("a@faß.de", ["a@xn--fa-hia.de"]),
    ("ガ@shop.example", ["ｶﾞ@shop.example"]),
]
LETTERS = "aIiİıßẞſςσΣkKK\u0307\u0301\u0308eéåÅｋＫﬁǆǅᲐაᎠꭰ.-_+'\u200b\u200d\u00ad1①"
LOCAL = st.text(LETTERS, min_size=1, max_size=6)
DOMAIN = st.text("aüÜßςσΣ\u0308\u200d.。．-1", min_size=1, max_size=6) | st.sampled_from(
    ["xn--bcher-kva.de", "XN--FA-HIA.de", "xn--", "xn--a.com", "xn--mgba3gch31f060k.com", "İ.com", "Ꭰ.com"]
)


@pytest.mark.parametrize(("key", "spellings"), SAME)
def test_spellings_of_an_address_have_one_key(key: str, spellings: list[str]) -> None:
    for spelling in [key, *spellings]:
        assert emails.fold(spelling) == key
        stored = emails.columns(spelling)
        assert stored.email is not None
        assert stored.email.lower() == key
        assert (stored.email_as_sent or stored.email) == spelling


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a@faß.de", "a@fass.de"),
        ("a@b.com", "a@b.co"),
        ("ann@shop.example", "anna@shop.example"),
        ("a@bücher.de", "a@bucher.de"),
        ("é@shop.example", "e@shop.example"),
        ("a.b@shop.example", "ab@shop.example"),
    ],
)
def test_different_addresses_have_different_keys(one: str, other: str) -> None:
    assert emails.fold(one) != emails.fold(other)


@given(st.text(LETTERS + "@", max_size=12) | st.text(max_size=12) | st.builds("{}@{}".format, LOCAL, DOMAIN))
@example("a@\u0378.com")
def test_key_of_a_key_is_the_key(text: str) -> None:
    key = emails.fold(text)
    assert emails.fold(key) == key
    assert key.lower() == key, "PostgreSQL's lower case does not change a key"


@given(st.builds("{}@{}".format, LOCAL, DOMAIN))
def test_stored_columns_have_the_key_in_lower_case_and_the_address(address: str) -> None:
    email, email_as_sent = emails.columns(address)
    assert email is not None
    assert email.lower() == emails.fold(address)
    assert (email_as_sent or email) == address


@given(st.builds("{}@{}".format, LOCAL, DOMAIN))
def test_key_of_a_valid_address_is_that_of_the_stored_address(address: str) -> None:
    try:
        stored = fields.email(address)
    except ValueError:
        return
    assert emails.fold(stored) == emails.fold(address)


def test_long_text_is_folded_without_recursion_and_is_not_kept() -> None:
    before = emails._fold.cache_info().currsize  # noqa: SLF001 (its size is the promise)
    assert emails.fold("i" + "\u0307" * 20_000 + "@x.com") == "i@x.com"
    assert emails.fold("\ufdfa" * 5_000).startswith("صلى")
    assert emails._fold.cache_info().currsize == before  # noqa: SLF001


@pytest.mark.parametrize("part", ["xn--bcher-kva", "@xn--bcher-kva.de", "@BÜCHER.de", "bu\u0308cher"])
def test_part_of_an_address_is_folded_like_the_address(part: str) -> None:
    assert emails.fold(part) in "ann@bücher.de"


@pytest.mark.parametrize("margin", ["\u00a0", "\u200b", "\ufeff", "\u3000", "\u2060", "\t", "\u200e", "\u00ad", " \n"])
def test_white_space_around_an_address_is_removed(margin: str) -> None:
    assert fields.email(f"{margin}ann@example.com{margin}") == "ann@example.com"


@pytest.mark.parametrize("domain", ["shop.test", "a.invalid", "b.localhost", "localhost", "ｓhop.TEST", "a。invalid"])
def test_reserved_domain_is_accepted_for_tests_only(domain: str) -> None:
    assert fields.email(f"ann@{domain}", is_test=True) == f"ann@{domain.lower()}"
    with pytest.raises(ValueError, match="test keys only"):
        fields.email(f"ann@{domain}")


@pytest.mark.parametrize("domain", ["a..test", ".test", "-a.test", "a_b.test", "test "])
def test_invalid_reserved_domain_is_refused_for_tests_too(domain: str) -> None:
    if domain != "test ":
        with pytest.raises(ValueError, match="Invalid"):
            fields.email(f"ann@{domain}", is_test=True)


@pytest.mark.parametrize(
    "address",
    [
        *("a..b@docomo.ne.jp", "a.@ezweb.ne.jp", "a...b..@softbank.ne.jp", "taro..1@d.vodafone.ne.jp", "a.@au.com"),
        *("a..b@DOCOMO.ne.jp", "a.@t.vodafone.ne.jp", "a..@i.softbank.jp", "x..y@disney.ne.jp", "a.@ido.ezweb.ne.jp"),
    ],
)
def test_dots_of_japanese_carriers_are_accepted(address: str) -> None:
    local, _, domain = address.rpartition("@")
    assert fields.email(address) == f"{local}@{domain.lower()}"


@pytest.mark.parametrize(
    "address",
    [
        *("a..b@example.com", "a.@example.com", ".a@docomo.ne.jp", "..@docomo.ne.jp", "a..b@notdocomo.ne.jp"),
        *("a..b@docomo.ne.jp.example.com", "a b..@docomo.ne.jp", "a..b@xdocomo.ne.jp", "@docomo.ne.jp"),
    ],
)
def test_dots_are_refused_elsewhere(address: str) -> None:
    with pytest.raises(ValueError, match="Invalid email format"):
        fields.email(address)
