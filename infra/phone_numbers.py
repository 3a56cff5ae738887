"""Phone numbers as people write them: one reading for writes, searches and documents.

A number is written with digits of any script, spaces, dashes and dots of any kind, invisible marks, and an extension.
`read` brings these to ASCII. The library `phonenumbers` then decides what the digits mean in a country.
"""

import re
import unicodedata
from typing import NamedTuple

import phonenumbers
from phonenumbers import PhoneNumber, ValidationResult

from infra.phones import parse_plain

MAX_LENGTH, MIN_DIGITS = 40, 3
TEL = re.compile(r"\s*tel:\s*", re.IGNORECASE)
DOTS = str.maketrans(dict.fromkeys("·•‧∙⋅・。٫۔", "."))
DASHES = str.maketrans(dict.fromkeys("−ー⁃˗➖─", "-"))
"""Characters that look like a dash or are typed as one, outside Unicode's category of dashes (Pd)."""
NUMBER = re.compile(r"[0-9 +\-.()/x#]*")
EXTENSION = re.compile(r"[\s,;(]*(?:;ext=|extension|extn|ext|x|#)[\s.:]*([0-9]{1,15})\s*\)?\s*", re.IGNORECASE)
DECIMAL_NUMBER = re.compile(r"\+?[0-9]{5,}[.,]0{1,2}")
MARK = re.compile("[x#]")
"""A mark of an extension."""
MARK_IN_NUMBER = re.compile(r"(?:[0-9][^0-9x#]*){3,}[x#][^0-9]*[0-9]")
"""A mark after the number, with digits, that is not at the end of the text."""
SECOND_PLUS = re.compile(r"(?:[0-9][^0-9+]*){3,}\+")
SPACED_DASH = re.compile(r"\s-\s")
FULL_NUMBER = 7
"""Digits from which a part between spaced dashes is a number of its own."""
MAX_AREA_CODE, MAX_TRUNK_AREA_CODE, MAX_COUNTRY_AND_AREA_CODE = 4, 6, 10
"""Digits before a slash: of an area code, of one that begins with 0, and of one after a country code."""
# Years of the Gregorian, the Persian, the Islamic and the Thai calendar.
DATE = re.compile(r"([0-9]{1,2})\s*([/.-])\s*([0-9]{1,2})\s*\2\s*(?:1[349]|2[05])[0-9]{2}")
DATE_FROM_YEAR = re.compile(r"(?:1[349]|2[05])[0-9]{2}\s*([/.-])\s*([0-9]{1,2})\s*\1\s*([0-9]{1,2})")
SHORT_DATE = re.compile(r"([0-9]{1,2})/([0-9]{1,2})/[0-9]{2}")
MAX_DAY, MAX_MONTH = 31, 12
SCIENTIFIC = re.compile(r"[+-]?[0-9]+(?:[.,][0-9]+)?e\+?[0-9]+", re.IGNORECASE)
INVALID = (
    "Invalid phone number: send digits, spaces, dashes, dots and +()/ with at least 3 digits, and an extension as x12, "
    "such as +442079460000 x12"
)
DECIMAL_ADVICE = (
    "Invalid phone number: a spreadsheet has turned the number into a decimal number (.0). Format the column as text"
)
SCIENTIFIC_ADVICE = (
    "Invalid phone number: a spreadsheet has turned the number into scientific notation, which loses digits. Format "
    "the column as text, and enter the number again"
)
EXTENSION_ADVICE = (
    "Invalid phone number: there must be only one extension, of at most 15 digits at the end, such as +442079460000 x12"
)
TWO_FORMS = {
    # Mexico: mobile numbers had a 1 for calls from abroad, and 044, 045 or 01 for calls within the country, until 2020.
    52: (re.compile(r"(?:044|045|01|1)?([2-9][0-9]{9})"), (r"\1", r"1\1")),
    # Argentina: mobile numbers have a 9 for calls from abroad.
    54: (re.compile(r"9?([1-8][0-9]{9})"), (r"\1", r"9\1")),
    # Brazil: mobile numbers have a ninth digit since 2016.
    55: (re.compile(r"([1-9][0-9])9?([6-9][0-9]{7})"), (r"\1\2", r"\g<1>9\2")),
    # Colombia: landlines begin with 60 since 2021.
    57: (re.compile(r"(?:60)?([124-8][0-9]{7})"), (r"\1", r"60\1")),
    # Benin: every number begins with 01 since 2024.
    229: (re.compile(r"(?:01)?([24-9][0-9]{7})"), (r"\1", r"01\1")),
}
"""Countries where one line has two forms: by calling code, the pattern of the national number, and both forms."""


class PhoneText(NamedTuple):
    """A phone number in ASCII."""

    number: str
    extension: str
    """Empty if there is none."""

    @property
    def digits(self) -> str:
        return "".join(filter(str.isdigit, self.number + self.extension))


def stored(text: str, region: str | None) -> str:
    """Return a possible number in E.164, with its extension as ` x12`; any other as sent, without `tel:`.

    Args:
        text: the number.
        region: country of national numbers, as two letters.

    Raises:
        ValueError: the text is not a phone number.
    """
    if (plain := parse_plain(text)) and plain.national in _forms(plain.code, plain.national):
        return text
    text = TEL.sub("", text, count=1) if TEL.match(text) else text
    written = read(text)
    if written is None or MARK_IN_NUMBER.search(written.number):
        raise ValueError(EXTENSION_ADVICE if written else _fault(text))
    number = _parse(written, region)
    if number is None:
        return text
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164) + (
        f" x{number.extension}" if number.extension else ""
    )


def _is_date(number: str) -> bool:
    for pattern, day, month in ((DATE, 1, 3), (DATE_FROM_YEAR, 2, 3), (SHORT_DATE, 1, 2)):
        if match := pattern.fullmatch(number):
            parts = sorted((int(match[day]), int(match[month])))
            return 1 <= parts[0] <= MAX_MONTH and parts[1] <= MAX_DAY
    return False


def _has_two_numbers(number: str) -> bool:
    if SECOND_PLUS.search(number):
        return True
    first, *others = map(_count_digits, SPACED_DASH.split(number))
    is_full = first > MAX_COUNTRY_AND_AREA_CODE if _is_international(number) else first >= FULL_NUMBER
    return is_full and max(others, default=0) >= FULL_NUMBER


def _has_odd_slash(number: str) -> bool:
    """Return whether a slash follows more digits than an area code has, as in `030 1234567/68`."""
    first, *others = number.split("/")
    if not others:
        return False
    if _is_international(first):
        limit = MAX_COUNTRY_AND_AREA_CODE
    else:
        limit = MAX_TRUNK_AREA_CODE if first.lstrip(" (").startswith("0") else MAX_AREA_CODE
    return _count_digits(first) > limit or any(_count_digits(part) > MAX_AREA_CODE for part in others[:-1])


def _is_international(number: str) -> bool:
    return number.lstrip(" (").startswith(("+", "00"))


def _count_digits(text: str) -> int:
    return sum(map(str.isdigit, text))


def _fault(text: str) -> str:
    ascii_text = _ascii(text)
    if DECIMAL_NUMBER.fullmatch(ascii_text):
        return DECIMAL_ADVICE
    if len(EXTENSION.findall(ascii_text)) > 1:
        return EXTENSION_ADVICE
    return SCIENTIFIC_ADVICE if SCIENTIFIC.fullmatch(ascii_text) else INVALID


def read(text: str) -> PhoneText | None:
    """Return a text as a phone number in ASCII; None if it is not one."""
    if len(text) > MAX_LENGTH:
        return None
    written = _split(text)
    if not NUMBER.fullmatch(written.number) or len(written.digits) < MIN_DIGITS:
        return None
    return None if DECIMAL_NUMBER.fullmatch(written.number) else written


def _split(text: str) -> PhoneText:
    number = TEL.sub("", _ascii(text), count=1)
    extension = next((match for match in EXTENSION.finditer(number) if match.end() == len(number)), None)
    if extension and sum(map(str.isdigit, number[: extension.start()])) >= MIN_DIGITS:
        return PhoneText(number[: extension.start()].strip(), extension[1])
    return PhoneText(number.strip(), "")


def _ascii(text: str) -> str:
    """Return text with ASCII digits, spaces, dashes and dots, without invisible characters."""
    if text.isascii():
        return text
    usual = unicodedata.normalize("NFKC", text.translate(DOTS)).translate(DOTS).translate(DASHES)
    return "".join(map(_ascii_character, usual))


def _ascii_character(character: str) -> str:
    if character.isdecimal():
        return str(unicodedata.decimal(character))
    return {"Pd": "-", "Zs": " ", "Cf": ""}.get(unicodedata.category(character), character)


def parse(text: str, region: str | None) -> PhoneNumber | None:
    """Parse a phone number. Return None for a text or a length that is impossible in the country."""
    written = read(text)
    return written and _parse(written, region)


def _parse(written: PhoneText, region: str | None) -> PhoneNumber | None:
    text = written.number.rstrip("x# ")
    # The library would read a date, or two numbers, as one long number.
    if MARK.search(text) or _has_odd_slash(text) or _has_two_numbers(text) or _is_date(text):
        return None
    try:
        number = phonenumbers.parse(text, region)
    except phonenumbers.NumberParseException:
        return None
    if phonenumbers.is_possible_number_with_reason(number) == ValidationResult.IS_POSSIBLE:
        possible: PhoneNumber | None = number
    else:
        possible = _former_number(number)
    if possible is not None and written.extension:
        possible.extension = written.extension
    return possible


def _former_number(number: PhoneNumber) -> PhoneNumber | None:
    """Return a number whose form is no longer possible, if its other form is."""
    if number.country_code not in TWO_FORMS:
        return None
    national = phonenumbers.national_significant_number(number)
    forms = _forms_of(number)
    for form in forms:
        other = phonenumbers.parse(f"+{number.country_code}{form}")
        if phonenumbers.is_possible_number_with_reason(other) == ValidationResult.IS_POSSIBLE:
            return number if national in forms else other
    return None


def _forms_of(number: PhoneNumber) -> list[str]:
    assert number.country_code is not None
    return _forms(number.country_code, phonenumbers.national_significant_number(number))


def _forms(code: int, national: str) -> list[str]:
    """Return the national number in both forms if the line has two, else alone."""
    pattern, forms = TWO_FORMS.get(code, (None, ()))
    match = pattern.fullmatch(national) if pattern else None
    return [match.expand(form) for form in forms] if match else [national]


def searched_digits(text: str, region: str | None) -> list[str]:
    """Return the possible indexed forms of a phone number, as digits; an empty list for any other text."""
    written = read(text)
    if written is None:
        return []
    forms = {written.digits, written.digits.removeprefix("00")}
    number = _parse(written, region)
    if number is not None:
        forms |= {f"{number.country_code}{form}{written.extension}" for form in _forms_of(number)}
    return sorted(form for form in forms if len(form) >= MIN_DIGITS)


def equivalents(text: str, region: str | None) -> list[str]:
    """Return the stored forms of all numbers that are the same line as the text; the text itself if it is no number."""
    try:
        first = stored(text, region)
    except ValueError:
        return [text]
    number = parse(first, None)
    if number is None:
        return [first]
    suffix = f" x{number.extension}" if number.extension else ""
    others = (f"+{number.country_code}{form}{suffix}" for form in _forms_of(number))
    return list(dict.fromkeys([first, *others]))
