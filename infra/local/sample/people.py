"""Names of many scripts and languages (people.txt), and what goes with them: a country, a range of phone numbers.

All are common given and family names, put together at random. Phone numbers are of ranges kept for fiction where a
country has one, else around the example that `phonenumbers` gives.
"""

from pathlib import Path
from typing import NamedTuple


class Name(NamedTuple):
    """A name, and how it is written in an e-mail address."""

    text: str
    latin: str


class People(NamedTuple):
    """People of one language and country; where family names agree with given ones, women and men apart."""

    language: str
    country: str
    weight: int
    """How many there are, compared with the others."""
    phone: str
    """Their numbers; each `#` is any digit."""
    form: str
    given: tuple[Name, ...]
    family: tuple[Name, ...]


def _people(record: str) -> People:
    head, given, family = record.splitlines()
    locale, weight, phone, *form = head.split()
    language, country = locale.split("-")
    names = tuple(tuple(map(_name, line.split())) for line in (given, family))
    return People(language, country, int(weight), phone, _spaced(*form or ["{given}_{family}"]), *names)


def _name(entry: str) -> Name:
    text, _, latin = _spaced(entry).partition("=")
    return Name(text, latin or text)


def _spaced(entry: str) -> str:
    return entry.replace("_", " ")


PEOPLE = tuple(map(_people, Path(__file__).with_name("people.txt").read_text("utf-8").split("\n\n")[1:]))

# Where people may pay in a currency of their own: its code, and units for one US dollar, about right for ever.
CURRENCIES = {
    **dict.fromkeys(("DE", "ES", "FI", "FR", "GR", "IE", "IT", "NL"), ("EUR", "0.92")),
    "GB": ("GBP", "0.79"),
    "CA": ("CAD", "1.37"),
    "JP": ("JPY", "151.40"),
    "SE": ("SEK", "10.55"),
    "PL": ("PLN", "3.98"),
    "BR": ("BRL", "5.15"),
    "IN": ("INR", "83.40"),
}
