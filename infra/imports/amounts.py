"""Read amounts with separators of thousands, and with a decimal point or a decimal comma."""

import re

SPACED = re.compile(r"-?[0-9]{1,3}(?:[ \u00a0\u2009\u202f'’][0-9]{3})+(?:[.,][0-9]+)?")
"""An amount with spaces or apostrophes between thousands."""
OTHER_SEPARATOR = {".": ",", ",": "."}
CERTAIN = {
    decimal: re.compile(
        rf"-?(?:[0-9]+{point}(?:[0-9]{{1,2}}|[0-9]{{4,}})|(?:0[0-9]*|[0-9]{{4,}}){point}[0-9]{{3}}"
        rf"|[0-9]{{1,3}}(?:{comma}[0-9]{{2,3}})*{comma}[0-9]{{3}}{point}[0-9]+|[0-9]{{1,3}}(?:{comma}[0-9]{{3}}){{2,}})"
    )
    for decimal, point, comma in ((".", r"\.", ","), (",", ",", r"\."))
}
"""Amounts that can have only this decimal separator, by the separator."""
AMBIGUOUS = re.compile(r"-?[1-9][0-9]{0,2}[.,][0-9]{3}")


def decimal_separator(text: str) -> str | None:
    """Return the decimal separator of an amount; None if the amount has none, or may have either."""
    plain = _without_spaces(text)
    return next((separator for separator, pattern in CERTAIN.items() if pattern.fullmatch(plain)), None)


def money(text: str, decimal: str | None = None) -> str:
    """Return an amount with a decimal point, and without separators of thousands.

    A text that is not an amount is returned unchanged, and no rule accepts it.

    Args:
        text: an amount such as 1,129.00, 49,00 or 1 000.
        decimal: the decimal separator of the file, if known.

    Raises:
        ValueError: the amount is ambiguous, such as 1.000, and the separator is not known; or it has another one.
    """
    plain = _without_spaces(text)
    if AMBIGUOUS.fullmatch(plain) and plain == text:
        if decimal is None:
            raise ValueError(
                f"{text!r} may be a whole number or have three decimals: name the decimal separator of the file by "
                "--decimal point or --decimal comma"
            )
    else:
        of_file, decimal = decimal, decimal_separator(text)
        if of_file and decimal == OTHER_SEPARATOR[of_file]:
            raise ValueError(
                f"{text!r} has another decimal separator than the file: correct the amount, or name the separator of "
                "the file by --decimal point or --decimal comma"
            )
    if decimal is None:
        return plain
    return plain.replace(OTHER_SEPARATOR[decimal], "").replace(decimal, ".")


def with_point(text: str) -> str:
    """Return an amount of a file that has a decimal point and no separators of thousands.

    Raises:
        ValueError: the amount has a comma, or spaces between thousands.
    """
    if text != _without_spaces(text) or ("," in text and (AMBIGUOUS.fullmatch(text) or decimal_separator(text))):
        raise ValueError(
            f"{text!r} has a decimal comma or separators of thousands: name the decimal separator of the file by "
            "--decimal point or --decimal comma"
        )
    return text


def _without_spaces(text: str) -> str:
    return re.sub("[^0-9.,-]", "", text) if SPACED.fullmatch(text) else text
