"""Validation of fields."""

import csv
from datetime import UTC, datetime
from decimal import Decimal

import msgspec
import pytest
from email_validator import EmailNotValidError, validate_email
from hypothesis import example, given
from hypothesis import strategies as st

from infra import fields
from infra.settings import ROOT

PHONES = ROOT.parent / "shared" / "data" / "phones" / "example_numbers.csv"


@pytest.mark.shared_data
@pytest.mark.skipif(not PHONES.exists(), reason="the folder shared/data is not beside the project")
def test_every_example_number_becomes_e164() -> None:
    with PHONES.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    # Canada's 310-1234 works only in Canada, so it is not an international number.
    numbers = [row for row in rows if row["valid"] == "1" and row["e164"] != "+13101234"]
    assert len(numbers) > 1000
    for row in numbers:
        assert fields.phone(row["international"]) == row["e164"]
        assert fields.phone(row["e164"], "US") == row["e164"]
        if not row["region"].isdigit():
            assert fields.phone(row["national"], row["region"]) == row["e164"], row


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        ("A.b+C@EXAMPLE.Com", "A.b+C@example.com"),
        ("José@Exämple.COM", "José@exämple.com"),
        ("伊@郵件.商務", "伊@郵件.商務"),
    ],
)
def test_email_keeps_its_local_part_and_lowers_its_domain(sent: str, stored: str) -> None:
    assert fields.email(sent) == stored


@pytest.mark.parametrize(
    ("sent", "stored"),
    [("  José ", "José"), ("Jose\u0301", "José"), ("\u3000田中\u2003", "田中"), ("a" * 255, "a" * 255), ("한", "한")],
)
def test_name_is_trimmed_and_composed(sent: str, stored: str) -> None:
    assert fields.full_name(sent) == stored


@given(st.decimals(0, Decimal("99999999999.9999"), places=4))
def test_amount_keeps_its_spelling(value: Decimal) -> None:
    assert fields.amount(str(value)) == value
    assert fields.amount(value) == value


@given(st.text(max_size=20))
def test_amount_of_any_text_is_a_decimal_in_its_range_or_refused(text: str) -> None:
    try:
        value = fields.amount(text)
    except ValueError:
        return
    assert 0 <= value < 10**15
    assert value == round(value, 4)


@given(st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29), timezones=st.timezones()))  # noqa: DTZ001
def test_time_in_any_zone_becomes_utc_without_microseconds(moment: datetime) -> None:
    if moment.utcoffset() and moment.strftime("%z")[5:]:
        return  # an offset with seconds, as in the 19th century, is not RFC 3339
    read = fields.timestamp(moment.isoformat())
    assert read.tzinfo is UTC
    assert read == moment.astimezone(UTC).replace(microsecond=moment.microsecond // 1000 * 1000)


@given(st.text(max_size=40))
def test_any_text_is_parsed_or_refused_with_a_message(text: str) -> None:
    for rule in (fields.email, fields.phone, fields.full_name, fields.external_id, fields.amount, fields.timestamp):
        try:
            rule(text)
        except ValueError as error:
            assert str(error)  # noqa: PT017 (most texts raise, some do not)


@pytest.mark.parametrize("name", ["\u200b", "\u00ad\u2060", "\ufe0f", "\u034f \u200d", "\u3164", "\u2800 \u115f"])
def test_name_of_invisible_characters_is_empty(name: str) -> None:
    with pytest.raises(ValueError, match="1 to 255"):
        fields.full_name(name)


@pytest.mark.parametrize("text", [" x20 ", "\ufeffx20\u200b", "\u00a0x20\u3000", "\tx20\r\n"])
def test_external_id_is_trimmed(text: str) -> None:
    assert fields.external_id(text) == "x20"


@pytest.mark.parametrize("text", ["a\tb", "a\0b", "a\x85b", "a\u200bb", "a\u00adb", "a\u00a0b", "a\u3164", "a\ufe0fb"])
def test_external_id_with_an_invisible_character_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must not contain invisible characters: U"):
        fields.external_id(text)


@pytest.mark.parametrize("text", ["a b", "№ 1", "ключ", "客户-1", "O'Quill", "#1001", "é"])
def test_visible_external_id_is_unchanged(text: str) -> None:
    assert fields.external_id(text) == text


@pytest.mark.parametrize(
    "domain",
    [
        *("example.com", "bücher.com", "Bücher.COM", "xn--bcher-kva.com", "xn--", "xn--a.com", "日本.jp", "foo。com"),
        *("a_b.com", "localhost", "a..b", "", "[1.2.3.4]", "é" * 63 + ".com", "ｅxample.com"),
        *(".".join(["ü" * 20] * 8) + ".de", ".".join(["a" * 60] * 3) + ".com", ".".join(["日本語"] * 15) + ".jp"),
    ],
)
def test_cached_check_of_a_domain_agrees_with_the_whole_check(domain: str) -> None:
    """The length of an address counts in each form of the domain, so it depends on the local part."""
    for length in range(1, min(66, 254 - len(domain))):
        address = "a" * length + f"@{domain}"
        try:
            validate_email(address, check_deliverability=False, strict=True)
        except EmailNotValidError:
            with pytest.raises(ValueError, match="Invalid email format"):
                fields.email(address)
        else:
            assert fields.email(address) == address[: length + 1] + domain.lower()


@given(number=st.floats(allow_nan=False, allow_infinity=False))
@example(number=1e16)
@example(number=-5e-324)
def test_metadata_counts_a_number_as_the_database_writes_it(number: float) -> None:
    """16 KiB of numbers with expanded exponents are accepted; a further number is not."""
    text = msgspec.json.encode(number).decode()
    written = len(f"{Decimal(text):f}" if "e" in text else text)
    fitting = (fields.METADATA_BYTES - len('{"a":[]}') + 1) // (written + 1)
    fields.metadata({"a": [number] * fitting})
    with pytest.raises(ValueError, match="16 KiB"):
        fields.metadata({"a": [number] * (fitting + 1)})
