"""E-mail addresses: which are valid, and the only definition of when two addresses are one.

Writing, the unique index, and every search compare addresses by their key. The table `consumers` keeps the key in the
column `email` wherever the key differs from the address in lower case, and then keeps the address as it was sent in
`email_as_sent`. The unique index and the statements of the release before therefore need no change.
"""

import re
import unicodedata
from functools import lru_cache
from typing import NamedTuple

import idna
from email_validator import EmailNotValidError, validate_email

MAX_LENGTH = 254
"""The limit of RFC 5321, for the address and for its key."""
AT_SIGNS = str.maketrans({"＠": "@", "﹫": "@"})
ACE_LABEL = re.compile(r"xn--[a-z0-9-]+")
"""A domain label in Punycode."""
DOTS = re.compile("[.。．｡]")
DOTTED_I = re.compile("i\u0307+")
"""The lower case of the Turkish `İ`. PostgreSQL and keyboards give `i`."""
LONGEST_CACHED = 320
"""Characters of a text whose key is kept in memory: an address, with some invisible characters."""


# A local part valid by every rule: at most 64 characters, words separated by single dots.
PLAIN_LOCAL = re.compile(r"(?=.{1,64}\Z)[A-Za-z0-9_+-]+(\.[A-Za-z0-9_+-]+)*")
DOTTED_LOCAL = re.compile(r"\.{2,}|\.\Z")
DOTTED_DOMAINS = re.compile(
    r"(?:[a-z0-9-]+\.)*(?:docomo\.ne\.jp|ezweb\.ne\.jp|au\.com|softbank\.ne\.jp|i\.softbank\.jp|vodafone\.ne\.jp"
    r"|disney\.ne\.jp|willcom\.com|pdx\.ne\.jp)"
)
"""Domains of Japanese carriers, which until 2009 gave out addresses with dots in a row and at the end."""
TEST_DOMAIN = re.compile(r"(?:.+\.)?(test|invalid|localhost)")
"""Domains that RFC 2606 reserves. `example` is reserved too, but is in use for addresses that are never written to."""


class Columns(NamedTuple):
    """An address in the columns of `consumers`."""

    email: str | None
    email_as_sent: str | None
    """None if `email` is the address as sent."""


def columns(address: str | None) -> Columns:
    """Return an address as `consumers` stores it."""
    if address is None or (address.isascii() and not _has_ace_label(address)):
        return Columns(address, None)
    key = fold(address)
    return Columns(address, None) if address.lower() == key else Columns(key, address)


def fold(text: str) -> str:
    """Return the key of an address, or of a part of an address: equal keys are one address.

    Case, width and Unicode's compatible forms do not count. A domain in Punycode equals its Unicode form (UTS 46, not
    transitional: `ß` and `ss` are two domains). White space at the ends and invisible characters are left out.
    """
    if text.isascii() and not _has_ace_label(text):
        return text.strip().lower()
    return _fold(text) if len(text) <= LONGEST_CACHED else _fold.__wrapped__(text)


def _has_ace_label(text: str) -> bool:
    return "xn--" in text.lower()


@lru_cache(maxsize=4096)
def _fold(text: str) -> str:
    local, at_sign, domain = _compatible(_with_at_sign(text)).strip().rpartition("@")
    if not at_sign:
        # Part of an address, as in searches: of the local part or of the domain.
        return ACE_LABEL.sub(lambda label: _unicode_label(label[0]), _fold_local(domain))
    return f"{_fold_local(local)}@{fold_domain(domain)}"


@lru_cache(maxsize=4096)
def fold_domain(domain: str) -> str:
    """Return a domain in lower case and in Unicode."""
    if domain.isascii() and not _has_ace_label(domain):
        return domain.lower()
    return ".".join(_unicode_label(label) for label in DOTS.split(domain))


def _with_at_sign(text: str) -> str:
    """Return an address typed in full width with the usual `@`."""
    return text if "@" in text else text.translate(AT_SIGNS)


def _fold_local(local: str) -> str:
    # Cherokee folds to capitals, and PostgreSQL's lower case must not change a key.
    folded = _compatible(_compatible(local).casefold().lower())
    return _compatible(DOTTED_I.sub("i", folded))


def _compatible(text: str) -> str:
    """Return text in Unicode form NFKC, without invisible characters."""
    visible = "".join(character for character in text if unicodedata.category(character) != "Cf")
    return unicodedata.normalize("NFKC", visible)


def _unicode_label(label: str) -> str:
    """Return a label of a domain in Unicode and in lower case. A label that IDNA refuses stays in Punycode."""
    try:
        label = idna.ulabel(idna.uts46_remap(label, std3_rules=False))
    except (idna.IDNAError, UnicodeError):
        label = _compatible(label).casefold()
    return _compatible(label).lower()


class _Domain(NamedTuple):
    """The rules of a domain for its addresses."""

    lower: str
    reserved: str | None
    """The name reserved for tests at the end of the domain."""
    has_further_dots: bool
    """Whether local parts may have dots in a row and at the end."""
    forms: tuple[str, ...]
    """The domain as sent, in ASCII and in Unicode; nothing if the domain is invalid."""


def checked(value: str, *, is_test: bool) -> str:
    """Return the address with the domain in lower case.

    Args:
        value: the address.
        is_test: accept domains reserved for tests.

    Raises:
        ValueError: the address is invalid.
    """
    value = _with_at_sign(value)
    if len(value) > MAX_LENGTH or (not value.isascii() and len(fold(value)) > MAX_LENGTH):
        raise ValueError(f"Email must be at most {MAX_LENGTH} characters")
    local, _, sent_domain = value.rpartition("@")
    domain = _domain(sent_domain)
    if domain.reserved and not is_test:
        raise ValueError(f"Invalid email format: domains in .{domain.reserved} are accepted with test keys only")
    # If the local part is plain, only the domain and the length must be validated. Few domains occur, so the cache
    # makes this 20 times faster, and 100 times faster for an internationalized domain.
    is_valid = _valid_length if PLAIN_LOCAL.fullmatch(local) else _valid_whole
    if not domain.forms or not is_valid(local, domain):
        raise ValueError("Invalid email format")
    return f"{local}@{domain.lower}"


@lru_cache(maxsize=4096)
def _domain(sent: str) -> _Domain:
    folded = fold_domain(sent)
    reserved = TEST_DOMAIN.fullmatch(folded)
    # The library refuses reserved domains. Their other labels are checked in a domain that it accepts.
    accepted = f"{sent}.com" if reserved else sent
    try:
        valid = validate_email(f"a@{accepted}", check_deliverability=False, strict=True)
    except EmailNotValidError:
        forms: tuple[str, ...] = ()
    else:
        forms = (accepted, valid.ascii_domain, valid.domain)
    # Letter by letter, because the lower case of a whole word ends in a final sigma, which is another domain.
    lower = "".join(map(str.lower, sent))
    return _Domain(lower, reserved and reserved[1], bool(DOTTED_DOMAINS.fullmatch(folded)), forms)


def _valid_length(local: str, domain: _Domain) -> bool:
    """Return whether the address is short enough in each form of the domain."""
    return all(len(f"{local}@{form}".encode()) <= MAX_LENGTH for form in domain.forms)


def _valid_whole(local: str, domain: _Domain) -> bool:
    """Return whether the address is valid, without a carrier's further dots."""
    if domain.has_further_dots:
        local = DOTTED_LOCAL.sub(lambda dots: "" if dots.end() == len(dots.string) else ".", local)
    try:
        validate_email(f"{local}@{domain.forms[0]}", check_deliverability=False, strict=True)
    except EmailNotValidError:
        return False
    return True
