"""The index over HTTP, for keys with the scope admin."""

from http import HTTPStatus
from typing import Any

import httpx
import pytest

from infra import keys
from tests.service import Account, Service
from tests.waiting import wait_until


def status(account: Account) -> Any:
    return account.live.get("/ops/index").raise_for_status().json()


def ended(account: Account) -> Any:
    found = status(account)["rebuild"]
    return found["wanted"] is None and found["phase"] in {"done", "failed", "cancelled"} and found


def test_index_is_told(account: Account) -> None:
    found = status(account)
    told = {
        "search",
        "generations",
        "rebuild",
        "parts",
        "waiting",
        "done",
        "workers",
        "parked",
        "verified",
        "differing",
    }
    assert told == set(found)
    assert found["search"] == "ok"
    [live] = [generation for generation in found["generations"] if generation["state"] == "live"]
    assert set(live["aliases"]) == {"read", "write"}


@pytest.mark.parametrize("request_", ["", "/rebuild", "/cancel", "/pause", "/resume", "/rollback", "/drop"])
def test_key_without_the_scope_admin_may_not(account: Account, service: Service, request_: str) -> None:
    with service.database.engine.begin() as connection:
        plain = keys.create(connection, account.name, "live").key
    method = "POST" if request_ else "GET"
    headers = {"Authorization": f"Bearer {plain}"}
    answer = httpx.request(method, f"{service.url}/api/v1/ops/index{request_}", headers=headers)
    assert (answer.status_code, answer.json()["error"]) == (HTTPStatus.FORBIDDEN, "Forbidden")


def test_rebuild_is_asked_for_followed_and_undone(account: Account) -> None:
    made = account.live.post("/consumers", json={"fullName": "Zoë"}).raise_for_status()
    asked = account.live.post("/ops/index/rebuild")
    assert asked.status_code == HTTPStatus.ACCEPTED
    rebuild = asked.json()
    refused = account.live.post("/ops/index/rebuild")
    assert refused.status_code == HTTPStatus.CONFLICT
    assert refused.json()["message"].startswith(f"{rebuild['indexName']} is being built already")
    done = wait_until(lambda: ended(account), 60, "the rebuild")
    assert (done["id"], done["phase"], done["state"]) == (rebuild["id"], "done", "live")
    back = account.live.post("/ops/index/rollback")
    assert (back.status_code, back.json()["wanted"]) == (HTTPStatus.ACCEPTED, "rollback")
    wait_until(lambda: status(account)["generations"][-1]["state"] == "kept", 60, "the rollback")
    token = {"Consistency-Token": made.headers["Consistency-Token"]}
    assert account.live.get("/consumers", headers=token).json()["data"][0]["fullName"] == "Zoë"
    assert account.live.post("/ops/index/drop").status_code == HTTPStatus.ACCEPTED
    wait_until(lambda: len(status(account)["generations"]) == 1, 60, "the kept index to go")
    for request in ("cancel", "pause", "resume", "rollback", "drop"):
        assert account.live.post(f"/ops/index/{request}").status_code == HTTPStatus.CONFLICT
