"""The fast parsing of plain phone numbers has the results of the library."""

import csv
from random import Random

import phonenumbers
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra import fields, phone_numbers
from infra.index import documents
from infra.phones import parse_plain
from tests.unit.test_fields import PHONES

REGIONS = [None, "US", "GB", "IT", "BR", "AR", "MX"]
CODES = sorted(phonenumbers.COUNTRY_CODE_TO_REGION_CODE)


def assert_is_as_the_library_has_it(number: str) -> None:
    for region in REGIONS:
        parsed = phone_numbers.parse(number, region)
        e164 = phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164) if parsed else number
        assert fields.phone(number, region) == e164, (number, region)
    forms = [number]
    try:
        parsed = phonenumbers.parse(number)
    except phonenumbers.NumberParseException:
        pass
    else:
        forms.append(phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.NATIONAL))
        forms.append(phonenumbers.national_significant_number(parsed))
    digits = ["".join(filter(str.isdigit, form)) for form in forms]
    assert documents.phone_digits(number) == list(dict.fromkeys(digits)), number


@given(st.sampled_from([*map(str, CODES), ""]), st.text("0123456789", min_size=3, max_size=20))
def test_any_number_is_parsed_like_the_library(code: str, national: str) -> None:
    assert_is_as_the_library_has_it(f"+{code}{national}")


@pytest.mark.parametrize("code", CODES)
def test_typical_numbers_are_parsed_like_the_library(code: int) -> None:
    """The examples of a country with some digits changed, so that every format occurs."""
    random = Random(code)
    examples = [phonenumbers.example_number_for_non_geo_entity(code)]
    for region in phonenumbers.region_codes_for_country_code(code):
        examples += [phonenumbers.example_number_for_type(region, kind) for kind in range(11)]
    nationals = {phonenumbers.national_significant_number(example) for example in examples if example}
    assert nationals
    for national in sorted(nationals):
        for _ in range(15):
            kept = random.randrange(len(national))
            made = national[:kept] + "".join(random.choices("0123456789", k=len(national) - kept))
            assert_is_as_the_library_has_it(f"+{code}{made}")


@pytest.mark.shared_data
@pytest.mark.skipif(not PHONES.exists(), reason="the folder shared/data is not beside the project")
def test_example_numbers_are_parsed_like_the_library() -> None:
    with PHONES.open(encoding="utf-8", newline="") as file:
        numbers = [row["e164"] for row in csv.DictReader(file) if row["e164"]]
    for number in numbers:
        assert_is_as_the_library_has_it(number)
    assert sum(map(bool, map(parse_plain, numbers))) > len(numbers) * 0.9
