"""Messages for unknown fields and parameters: the name that was probably meant, and the names that are allowed."""

from collections.abc import Collection
from difflib import get_close_matches

SIMILARITY = 0.75
MEANINGS = {
    "first": "limit size pagesize perpage take top maxresults",
    "after": "page offset cursor startingafter pagetoken nextpagetoken skip startafter",
    "before": "endingbefore endbefore",
    "sortBy": "sort orderby order sortfield",
    "sortDir": "direction sortorder dir sortdirection",
    "search": "q query term",
    "q": "search query term name fullname",
    "include": "expand embed with includes",
    "createdAfter": "since from createdsince createdfrom",
    "createdBefore": "until to createduntil createdto",
    "fullName": "name firstname lastname givenname familyname displayname",
    "email": "mail emailaddress",
    "phone": "mobile tel telephone phonenumber mobilephone",
    "metadata": "tags address notes attributes properties customfields birthday",
    "externalId": "customerid userid reference ref clientid ordernumber",
    "amount": "total totalamount price value",
    "currencyCode": "currency",
    "consumerId": "customer buyer",
    "items": "lineitems products lines",
    "placedAt": "date orderedat orderdate",
    "values": "value",
    "operator": "op comparison",
}
"""Names of other APIs by the name in this API, in lower case and without separators."""


def unknown(kind: str, name: str, known: Collection[str]) -> str:
    """Return the message for an unknown name.

    Args:
        kind: `field` or `parameter`.
        name: as sent.
        known: the names that are allowed.
    """
    meant = _meant(name, known)
    advice = f"use {meant}; " if meant else ""
    allowed = f"allowed are {', '.join(known)}" if known else "none is allowed"
    return f"Unknown {kind}: {advice}{allowed}"


def _meant(name: str, known: Collection[str]) -> str | None:
    plain = _plain(name[:64])
    by_plain = {_plain(each): each for each in known}
    if plain in by_plain:
        return by_plain[plain]
    for each in known:
        if plain in MEANINGS.get(each, "").split():
            return each
    close = get_close_matches(plain, by_plain, n=1, cutoff=SIMILARITY)
    return by_plain[close[0]] if close else None


def _plain(name: str) -> str:
    return name.replace("_", "").replace("-", "").lower()
