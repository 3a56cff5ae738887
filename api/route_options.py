"""Options of a route that are this project's own: the scope it needs, and how its requests count.

Litestar carries a route's options in an untyped dictionary, `opt`. Here that dictionary has one key, with one typed
value, so that the type checker finds a misspelled scope and a missing option.
"""

from typing import Any, Literal, NamedTuple

from litestar.handlers.base import BaseRouteHandler

from infra.accounts.keys import Scope

KEY = "route_options"

Category = Literal["reads", "writes", "batch"]
"""A category of requests that has a rate limit of its own (contract.md §1)."""


class RouteOptions(NamedTuple):
    """Options of an authenticated route."""

    scope: Scope
    """The scope that a key needs."""
    limit: Category
    """The rate limit that a request counts against."""
    from_index: bool
    """Whether the answer comes from the index, so that consistency headers apply."""
    batch_key: str | None
    """For a batch: the key of the array, if the body wraps it in an object."""

    @property
    def is_write(self) -> bool:
        return self.limit != "reads"


def route_options(
    scope: Scope, limit: Category, *, from_index: bool = False, batch_key: str | None = None
) -> dict[str, Any]:
    """Build the `opt` of an authenticated route."""
    return {KEY: RouteOptions(scope, limit, from_index, batch_key)}


def find_options(handler: BaseRouteHandler) -> RouteOptions | None:
    """Return a route's options; None if it needs no key, such as `/health/live`."""
    options: RouteOptions | None = handler.opt.get(KEY)
    return options


def options_of(handler: BaseRouteHandler) -> RouteOptions:
    """Return the options of an authenticated route.

    Raises:
        LookupError: the route declares none. It then answers 500, rather than without a check of the scope.
    """
    options: RouteOptions = handler.opt[KEY]
    return options
