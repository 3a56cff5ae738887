"""Quantities in the lines of orders, as the API and the importer store them.

The release before reads whole quantities only. A decimal quantity is therefore stored as `exactQuantity`, beside the
rounded `quantity`.
"""

from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import msgspec


def stored_quantity(quantity: Decimal) -> dict[str, Any]:
    """Return the members of a stored line that hold its quantity.

    >>> stored_quantity(Decimal("2.5"))["quantity"]
    3
    """
    whole = int(quantity.to_integral_value(ROUND_HALF_UP))
    if whole == quantity:
        return {"quantity": whole}
    return {"quantity": whole, "exactQuantity": msgspec.Raw(f"{quantity:f}".encode())}
