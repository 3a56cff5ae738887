"""Authorization by scope (contract.md §1). A scope guards its data wherever the data is shown.

1. The options of a route name the scopes required for each request of the route.
2. The type of a request names a further scope for a field that adds data of another resource to the answer
   (`include`), or that selects by such data (`audienceId`).
"""

from collections.abc import Iterable
from http import HTTPStatus
from typing import NamedTuple

import msgspec

from api.auth import caller_of
from api.errors import Problem
from api.request import AnyRequest
from infra.accounts.keys import Scope


class FieldScope(NamedTuple):
    """A scope required for each request with a certain field."""

    field: str
    """The attribute of the type."""
    scope: Scope
    value: str | None = None
    """Of a list: the value that requires the scope. None: any value of the field requires the scope."""

    def name(self, struct: type[msgspec.Struct]) -> str:
        """Return the field as in a request, such as `include=orders`."""
        names = dict(zip(struct.__struct_fields__, struct.__struct_encode_fields__, strict=True))
        return names[self.field] if self.value is None else f"{names[self.field]}={self.value}"

    def applies_to(self, request_value: msgspec.Struct) -> bool:
        """Return whether a body or the parameters of a query have the field."""
        sent = getattr(request_value, self.field)
        if sent is None or sent is msgspec.UNSET:
            return False
        return self.value is None or self.value in sent


def authorize(request: AnyRequest, scopes: Iterable[Scope]) -> None:
    """Require scopes of the caller's key.

    Raises:
        Problem: 403.
    """
    if missing := [scope for scope in scopes if scope not in caller_of(request).scopes]:
        raise _forbidden(missing[0])


def authorize_fields(request: AnyRequest, request_value: msgspec.Struct, scopes: Iterable[FieldScope]) -> None:
    """Require the scopes of the fields in a body or in the parameters of a query.

    Raises:
        Problem: 403.
    """
    for required in scopes:
        if required.scope not in caller_of(request).scopes and required.applies_to(request_value):
            raise _forbidden(required.scope, f", required for {required.name(type(request_value))}")


def _forbidden(scope: Scope, reason: str = "") -> Problem:
    return Problem(HTTPStatus.FORBIDDEN, "Forbidden", message=f"This key lacks the scope {scope}{reason}")
