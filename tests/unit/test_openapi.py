"""The OpenAPI document built from the routes."""

import pytest
from litestar import Litestar

from api.app import route_handlers
from api.openapi.endpoints import endpoints
from api.openapi.examples import example_of

# Dependencies without a marker are deprecated in Litestar 2; this project uses them.
pytestmark = pytest.mark.filterwarnings("ignore::litestar.exceptions.base_exceptions.LitestarDeprecationWarning")


def test_every_body_and_response_has_an_example() -> None:
    app = Litestar(route_handlers=route_handlers(), openapi_config=None)
    documented = [endpoint for endpoint in endpoints(app.routes) if endpoint.is_authenticated]
    types = {
        f"{endpoint.method} {endpoint.path}: {annotation}": annotation
        for endpoint in documented
        for annotation in (endpoint.body, endpoint.answer, *endpoint.further_answers.values())
        if annotation
    }
    assert len(types) > 40
    assert [name for name, annotation in types.items() if example_of(annotation) is None] == []
