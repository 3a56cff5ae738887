"""The endpoints of the API, derived from the routes."""

import warnings

from litestar import Litestar
from litestar.exceptions import LitestarDeprecationWarning

from api.app import route_handlers
from api.openapi.endpoints import Endpoint, endpoints


def authenticated_endpoints() -> list[Endpoint]:
    """Return the endpoints that need a key."""
    with warnings.catch_warnings():
        # Dependencies without a marker are deprecated in Litestar 2; this project uses them.
        warnings.simplefilter("ignore", LitestarDeprecationWarning)
        app = Litestar(route_handlers=route_handlers(), openapi_config=None)
    return [endpoint for endpoint in endpoints(app.routes) if endpoint.is_authenticated]


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
