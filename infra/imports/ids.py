"""Read external ids as spreadsheets, data frames and databases write them, and refuse damaged values."""

import re

from infra import fields

# Spreadsheets show long numbers like this; the digits are lost.
SCIENTIFIC = re.compile(r"[+-]?([0-9]+[.,][0-9]+[eE][+-]?[0-9]+|[0-9][eE][+-][0-9]+)")
WHOLE_ID = re.compile(r"(0|[1-9][0-9]*)([.,]0+)?")
"""A whole number, also as spreadsheets and data frames write a column of numbers and empty cells: 12345.0."""
MAX_EXACT_ID = 2**53
ORDINARY_ID = re.compile(r"[1-9][0-9]*|[A-Za-z][A-Za-z_-]*[0-9][A-Za-z0-9_-]*")
"""Ids that no rule changes or refuses, unless they are too long: a whole number, or letters and digits."""
MISSING_IDS = frozenset({"null", "nan", "none", "nil", "n/a", "na", "undefined", "-", "--", "?"})
"""Words for a missing value. As an id, they would be one person with the data of many."""
SPREADSHEET_ERROR = re.compile(r"#(N/A|NV|[^\W\d_]+(/0)?[!?]|#+)|(.* )?#(N/A|DIV/0!|[A-Z]{3,}[!?])( .*)?", re.DOTALL)
"""An error alone, or in capitals beside other text, as where columns are joined."""


def refuse_error(text: str) -> None:
    """Refuse the text of a cell with an error.

    Raises:
        ValueError: a spreadsheet has written an error, such as #NAME?, or a number that was wider than its column.
    """
    if SPREADSHEET_ERROR.fullmatch(text):
        raise ValueError(f"{text!r} is an error of a spreadsheet: correct the cell there, and save the file again")


def refuse_scientific(text: str) -> None:
    """Refuse a number in scientific notation.

    Raises:
        ValueError: the text is such a number.
    """
    if SCIENTIFIC.fullmatch(text):
        raise ValueError(
            f"{text!r} is in scientific notation, as spreadsheets show long numbers: format the column as text "
            "in the spreadsheet, and save the file again"
        )


def whole_id(text: str) -> str:
    """Return the id 12345 for 12345.0 or 12345,0; any other text unchanged."""
    match = WHOLE_ID.fullmatch(text)
    return match[1] if match else text


def exact_id(text: str, *, is_decimal: bool = False) -> str:
    """Return an external id.

    Args:
        text: the id.
        is_decimal: the ids of the column are numbers, and some have decimals: 12345.0 is the id 12345.

    Raises:
        ValueError: the external id is invalid, in scientific notation, or an unexpected decimal number.
    """
    if ORDINARY_ID.fullmatch(text):
        return fields.external_id(text)
    plain = fields.trimmed(text)
    if plain.lower() in MISSING_IDS:
        raise ValueError(f"{plain!r} is a word for a missing value: leave the cell empty")
    refuse_scientific(plain)
    match = WHOLE_ID.fullmatch(plain)
    # Beside other ids, 12.0 is refused at any size: without these ids the same row would have the id 12.
    if match and match[2] and not (is_decimal and int(match[1]) <= MAX_EXACT_ID):
        raise ValueError(
            f"{plain!r} is a decimal number, as spreadsheets write ids: format the column as text in the "
            "spreadsheet, and save the file again"
        )
    return fields.external_id(whole_id(plain) if is_decimal else text)
