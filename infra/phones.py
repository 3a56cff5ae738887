"""Phone numbers in plain E.164, which most are: read and written as phonenumbers does it, with what it knows kept.

The library itself takes 15 µs to read such a number and 10 µs to format it, most of it for finding out that there is
nothing to do. What is out of the ordinary is left to it; a test holds the two against each other.
"""

import re
from functools import cache
from typing import NamedTuple

import phonenumbers
from phonenumbers import COUNTRY_CODE_TO_REGION_CODE, PhoneMetadata

PLAIN = re.compile(r"\+[1-9][0-9]{2,18}")
SHORTEST, LONGEST = 2, 17
"""Digits the library takes for a national number."""
FIRST_GROUP = re.compile(r"(\\\d)")
GROUP_OR_MARK = re.compile(r"\\(\d)|\D")


class Plain(NamedTuple):
    """A number whose digits are its calling code and then its national number, nothing to be taken off."""

    code: int
    national: str

    def digits(self) -> list[str]:
        """Its digits internationally, nationally, and nationally without a prefix."""
        return [f"{self.code}{self.national}", _nationally(self.code, self.national), self.national]


def plain(number: str) -> Plain | None:
    """The parts of a number; None if it takes the library to tell them."""
    if not PLAIN.fullmatch(number):
        return None
    for end in (2, 3, 4):
        code, national = int(number[1:end]), number[end:]
        if code in COUNTRY_CODE_TO_REGION_CODE:
            prefix = _country(code).prefix
            known = SHORTEST <= len(national) <= LONGEST and not (prefix and prefix.match(national))
            return Plain(code, national) if known else None
    return None


class _Format(NamedTuple):
    leading: re.Pattern[str]
    whole: re.Pattern[str]
    digits: str
    """A template of the national number's groups, numbered from 1, without what stands between them."""


class _Country(NamedTuple):
    prefix: re.Pattern[str] | None
    formats: tuple[_Format, ...]


@cache
def _country(code: int) -> _Country:
    region = phonenumbers.region_code_for_country_code(code)
    known = PhoneMetadata.metadata_for_region_or_calling_code(code, region)
    assert known is not None
    formats = []
    for one in known.number_format:
        assert one.pattern is not None
        assert one.format is not None
        # The last of the patterns for the leading digits is the most exact one, and alone decides.
        leading = re.compile(one.leading_digits_pattern[-1] if one.leading_digits_pattern else "")
        template = one.format
        if one.national_prefix_formatting_rule:
            template = FIRST_GROUP.sub(one.national_prefix_formatting_rule, template, count=1)
        digits = GROUP_OR_MARK.sub(lambda found: f"{{{found[1]}}}" if found[1] else "", template)
        formats.append(_Format(leading, re.compile(one.pattern), digits))
    prefix = known.national_prefix_for_parsing
    return _Country(re.compile(prefix) if prefix else None, tuple(formats))


def _nationally(code: int, national: str) -> str:
    for one in _country(code).formats:
        if one.leading.match(national) and (found := one.whole.fullmatch(national)):
            return one.digits.format(None, *found.groups())
    return national
