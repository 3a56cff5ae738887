"""The OpenAPI document built from the routes."""

from api.openapi.examples import example_of
from tests.endpoints import authenticated_endpoints


def test_every_body_and_response_has_an_example() -> None:
    types = {
        f"{endpoint.method} {endpoint.path}: {annotation}": annotation
        for endpoint in authenticated_endpoints()
        for annotation in (endpoint.body, endpoint.answer, *endpoint.further_answers.values())
        if annotation
    }
    assert len(types) > 40
    assert [name for name, annotation in types.items() if example_of(annotation) is None] == []
