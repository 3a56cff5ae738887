"""Authorization: the kind of key, and the scopes of a merchant's key (contract.md §1).

An operator's key opens the operations alone, and a merchant's key everything else. A scope guards its data wherever the
data is shown:

1. The options of a route name the scopes required for each request of the route.
2. The type of a request names a further scope for a field with data of another resource: the answer shows the data
   (`include`), or the field selects by the data (`audienceId`).
"""

from collections.abc import Iterable
from http import HTTPStatus
from typing import NamedTuple

import msgspec

from api.auth import Caller, Operator, caller_of, requester_of
from api.errors import Problem
from api.request import AnyRequest
from api.route_options import RouteOptions
from infra.accounts import keys, operators
from infra.accounts.keys import Scope

NOT_FOR_OPERATORS = "An operator key opens only /api/v1/ops: use a secret key (sk_…) of an organization here"
ONLY_FOR_OPERATORS = f"An operator key (op_…) is required here: make one with `{operators.COMMAND}`"
ADMIN_REMOVED = f"{ONLY_FOR_OPERATORS}. The scope admin of this key was removed"


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
        if sent is None or sent is msgspec.UNSET or sent is False:
            return False
        return self.value is None or self.value in sent


def authorize(request: AnyRequest, options: RouteOptions) -> None:
    """Require the kind of key, and the scopes, of a route.

    Raises:
        Problem: 403.
    """
    requester = requester_of(request)
    if options.for_operators:
        if isinstance(requester, Caller):
            raise _forbidden(ADMIN_REMOVED if keys.ADMIN in requester.scopes else ONLY_FOR_OPERATORS)
    elif isinstance(requester, Operator):
        raise _forbidden(NOT_FOR_OPERATORS)
    else:
        for scope in options.scopes:
            require(request, scope)


def authorize_fields(request: AnyRequest, request_value: msgspec.Struct, scopes: Iterable[FieldScope]) -> None:
    """Require the scopes of the fields in a body or in the parameters of a query.

    Raises:
        Problem: 403.
    """
    for required in scopes:
        if required.applies_to(request_value):
            require(request, required.scope, f", required for {required.name(type(request_value))}")


def require(request: AnyRequest, scope: Scope, reason: str = "") -> None:
    """Require a scope of the key. `reason` continues the sentence of the message.

    Raises:
        Problem: 403.
    """
    if scope not in caller_of(request).scopes:
        raise _forbidden(f"This key lacks the scope {scope}{reason}")


def _forbidden(message: str) -> Problem:
    return Problem(HTTPStatus.FORBIDDEN, "Forbidden", message=message)
