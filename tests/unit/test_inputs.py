"""Reading the body of a request."""

from typing import Any

import pytest
from litestar import Litestar, post
from litestar.datastructures import State
from litestar.di import NamedDependency, Provide
from litestar.testing import TestClient

from api import inputs
from api.auth import Caller
from api.bodies import WAITING_BYTES, may_be_large
from api.consumers.schemas import ConsumerCreate
from api.drafts import BatchDraft
from api.request import AnyRequest
from api.route_options import route_options
from api.turns import Steps, T, Turns
from tests.seals import fixed_seal

CALLER = Caller(
    key_id="key", environment_id=1, mode="live", organization_id="org", scopes=frozenset(), seal=fixed_seal()
)


class RecordedTurns(Turns):
    """Turns that remember which work waited for its first turn."""

    def __init__(self) -> None:
        super().__init__()
        self.waited: list[bool] = []

    async def run(self, steps: Steps[T], *, waits: bool = False) -> T:
        self.waited.append(waits)
        return await super().run(steps, waits=waits)


@post("/", opt=route_options("write:consumers", "batch", batch_key="consumers"), status_code=200)
async def create(payload: NamedDependency[BatchDraft[ConsumerCreate]]) -> int:
    return len(payload.items)


async def authenticate(request: AnyRequest) -> None:
    request.scope["auth"] = CALLER


@pytest.mark.parametrize(
    ("name", "value", "is_large"),
    [
        ("content-length", str(WAITING_BYTES), False),
        ("content-length", str(WAITING_BYTES + 1), True),
        ("transfer-encoding", "chunked", True),
        ("accept", "*/*", False),
    ],
)
def test_request_is_large_by_its_headers(name: str, value: str, *, is_large: bool) -> None:
    scope: Any = {"headers": [(name.encode(), value.encode())]}
    assert may_be_large(scope) == is_large


@pytest.mark.parametrize(("number", "waits"), [(1, False), (3, True)])
def test_large_body_waits_for_its_first_turn(number: int, *, waits: bool) -> None:
    """A hundred first turns in a row would delay every other request."""
    turns = RecordedTurns()
    app = Litestar(
        [create],
        dependencies={"payload": Provide(inputs.payload)},
        state=State({"turns": turns}),
        before_request=authenticate,
    )
    with TestClient(app) as client:
        response = client.post("/", json=[{"metadata": {"note": "x" * 16_000}}] * number)
    assert (response.status_code, response.json()) == (200, number)
    assert turns.waited == [waits]
