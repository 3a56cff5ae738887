"""Names in many scripts and languages (people.txt), with country and phone number range.

All are common given and family names, combined at random. Phone numbers are in a range reserved for fiction if the
country has such a range, else near the example number of `phonenumbers`.
"""

from pathlib import Path
from typing import NamedTuple


class Name(NamedTuple):
    """A name, and its spelling in an e-mail address."""

    text: str
    latin: str


class People(NamedTuple):
    """People of one language and country; women and men are separate if family names have gendered forms."""

    language: str
    country: str
    weight: int
    """Relative frequency."""
    phone: str
    """Pattern of phone numbers; each `#` is a random digit."""
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

# Local currency of a country: code, and approximate units for one US dollar.
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
