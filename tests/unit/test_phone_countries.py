"""Countries of phone numbers are those of the library."""

from random import Random

import phonenumbers
import pytest
from phonenumbers import COUNTRY_CODE_TO_REGION_CODE, PhoneNumber

from infra.phone_countries import NO_COUNTRY, country_of

KINDS = range(11)


def numbers(random: Random) -> list[str]:
    """Return numbers of each calling code: examples of every kind and country, with other digits at the end."""
    made = []
    for code, countries in COUNTRY_CODE_TO_REGION_CODE.items():
        for country in countries:
            examples = [phonenumbers.example_number_for_type(country, kind) for kind in KINDS if country != NO_COUNTRY]
            for example in filter(None, examples):
                national = phonenumbers.national_significant_number(example)
                kept = len(national) - random.randrange(6)
                digits = "".join(random.choice("0123456789") for _ in range(len(national) - kept))
                made.append(f"+{code}{national[:kept]}{digits}")
    return made


def expected(text: str) -> str | None:
    number: PhoneNumber = phonenumbers.parse(text, keep_raw_input=False)
    country = phonenumbers.region_code_for_number(number)
    country = country or phonenumbers.region_code_for_country_code(number.country_code or 0)
    return None if country == NO_COUNTRY else country


def test_country_is_that_of_the_library() -> None:
    tried = 0
    for text in numbers(Random(1)):
        number = phonenumbers.parse(text)
        if text == phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164):
            assert country_of(text) == expected(text), text
            tried += 1
    assert tried > 1000


@pytest.mark.parametrize(
    "text", ["", "12 34", "+44 20 7946 0111", "+80012345678", "+", "+0123456789", "+44x", "+999123456"]
)
def test_other_texts_have_no_country(text: str) -> None:
    assert country_of(text) is None


def test_extension_does_not_count() -> None:
    assert country_of("+442079460111 x12") == "GB"
