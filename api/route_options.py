"""This project's own options of a route: the required scopes, the rate limit, and how a body and an answer are made.

Litestar carries the options of a route in an untyped dictionary, `opt`. This project puts a single typed value there,
so the type checker finds a misspelled scope and a missing option.

`admit` (`api/app.py`) checks the rate limit and the scopes before the handler runs.
"""

from typing import Any, Literal, NamedTuple

from litestar.handlers.base import BaseRouteHandler

from infra.accounts.keys import Scope

KEY = "route_options"

OBJECT_BODY_BYTES = 256 * 1024
"""The largest body with a single object (contract.md §1)."""
LIST_BODY_BYTES = 10 * 1024 * 1024
"""The largest body with a batch or a list of ids."""

Category = Literal["reads", "writes", "batch"]
"""A category of requests with a separate rate limit (contract.md §1)."""


class RouteOptions(NamedTuple):
    """Options of an authenticated route: for merchants' keys or, if `for_operators`, for operators' keys."""

    scopes: tuple[Scope, ...]
    """The scopes required of a key. A field of a request may require a further scope (`api/scopes.py`)."""
    limit: Category
    """The rate limit for requests of the route."""
    from_index: bool
    """Whether the answer comes from the index; the consistency headers then apply."""
    batch_key: str | None
    """For a batch: the key of the array in a body with an object around the array."""
    for_operators: bool = False
    ids_key: str | None = None
    """For a list of ids alone: the key of the list in the body."""
    may_hold_ids: bool = False
    """Whether the body may hold a list of ids beside other members."""
    body_is_optional: bool = False
    """Whether no body is the same as an empty object."""

    @property
    def max_body_bytes(self) -> int:
        return LIST_BODY_BYTES if self.batch_key or self.ids_key or self.may_hold_ids else OBJECT_BODY_BYTES

    @property
    def is_write(self) -> bool:
        return self.limit != "reads"


def route_options(
    scopes: Scope | tuple[Scope, ...],
    limit: Category,
    *,
    from_index: bool = False,
    batch_key: str | None = None,
    ids_key: str | None = None,
    body_is_optional: bool = False,
) -> dict[str, Any]:
    """Build the `opt` of a route for merchants. Most routes require a single scope."""
    required = scopes if isinstance(scopes, tuple) else (scopes,)
    options = RouteOptions(required, limit, from_index, batch_key, ids_key=ids_key, body_is_optional=body_is_optional)
    return {KEY: options}


def operator_options(limit: Category, *, may_hold_ids: bool = False) -> dict[str, Any]:
    """Build the `opt` of a route for operators. An operator's key has no scopes."""
    options = RouteOptions((), limit, from_index=False, batch_key=None, for_operators=True, may_hold_ids=may_hold_ids)
    return {KEY: options}


def find_options(handler: BaseRouteHandler) -> RouteOptions | None:
    """Return a route's options; None if the route needs no key, such as `/health/live`."""
    options: RouteOptions | None = handler.opt.get(KEY)
    return options


def options_of(handler: BaseRouteHandler) -> RouteOptions:
    """Return the options of an authenticated route.

    Raises:
        LookupError: the route declares none, and answers 500: no route is served without a check of the scope.
    """
    options: RouteOptions = handler.opt[KEY]
    return options
