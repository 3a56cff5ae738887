"""The endpoints of the API, derived from the routes."""

import warnings
from collections.abc import Sequence

from litestar import Litestar
from litestar.exceptions import LitestarDeprecationWarning
from litestar.routes import BaseRoute

from api.app import route_handlers
from api.openapi.endpoints import Endpoint, endpoints


def documented_routes() -> Sequence[BaseRoute]:
    """Return the routes of the application."""
    with warnings.catch_warnings():
        # Dependencies without a marker are deprecated in Litestar 2; this project uses them.
        warnings.simplefilter("ignore", LitestarDeprecationWarning)
        return Litestar(route_handlers=route_handlers(), openapi_config=None).routes


def authenticated_endpoints() -> list[Endpoint]:
    """Return the endpoints that need a key."""
    return [endpoint for endpoint in endpoints(documented_routes()) if endpoint.is_authenticated]


def merchant_endpoints() -> list[Endpoint]:
    """Return the endpoints for the keys of merchants."""
    chosen = [endpoint for endpoint in authenticated_endpoints() if not endpoint.is_for_operators]
    assert len(chosen) >= 20
    return chosen


def operator_endpoints() -> list[Endpoint]:
    """Return the endpoints for the keys of operators."""
    chosen = [endpoint for endpoint in authenticated_endpoints() if endpoint.is_for_operators]
    assert len(chosen) >= 10
    return chosen
