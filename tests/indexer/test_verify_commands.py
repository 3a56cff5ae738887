"""`consumers index verify`, `repair` and `reindex` with the workers of the whole service."""

import json
import os
import subprocess
import sys
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from infra import queue
from infra.index import naming
from tests.cli import ConsumersCommand, consumers_command
from tests.metrics import metrics
from tests.service import CELERY, Account, Service
from tests.waiting import wait_until


@pytest.fixture
def consumers(
    service: Service, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> ConsumersCommand:
    return consumers_command(service.database, monkeypatch, capsys)


@pytest.fixture
def tampered(account: Account) -> str:
    """A consumer whose document was deleted by hand."""
    name = account.live.post("/consumers", json={"fullName": "José"}).raise_for_status().json()["id"]
    account.live.post("/consumers", json={"fullName": "Zoë"}).raise_for_status()
    account.settled()
    index = f"{account.database.settings.index_prefix}-000001"
    params: dict[str, Any] = {"routing": naming.routing(account.live_environment), "refresh": "true"}
    account.database.search.delete(index=index, id=name, params=params)
    return str(name)


def test_verify_has_exit_code_1_for_differences_until_repaired(
    account: Account, tampered: str, consumers: ConsumersCommand
) -> None:
    options = ("--environment", f"{account.name}:live")
    result = consumers("index", "verify", *options, "--json")
    assert result.code == 1
    run = json.loads(result.out)
    assert [(each["documentId"], each["cause"]) for each in run["found"]] == [(tampered, "missing")]
    assert (run["compared"], run["environment"]) == (2, f"{account.name}:live")
    table = consumers("index", "verify", *options)
    assert table.code == 1
    assert tampered in table.out
    repaired = consumers("index", "repair", "--run", str(run["id"]))
    assert repaired.code == 0
    account.settled()
    clean = consumers("index", "verify", *options)
    assert (clean.code, "all agree" in clean.out) == (0, True)


def test_verify_of_one_environment_ignores_the_others(
    account: Account, tampered: str, consumers: ConsumersCommand
) -> None:
    assert tampered
    assert consumers("index", "verify", "--environment", f"{account.name}:test").code == 0


def test_unknown_run_cannot_be_repaired(consumers: ConsumersCommand) -> None:
    result = consumers("index", "repair", "--run", "999999")
    assert (result.code, result.err) == (1, "there is no run 999999\n")
    assert consumers("index", "verify", "--environment", "nobody:live").code == 1


def test_verify_and_repair_over_http(account: Account, tampered: str) -> None:
    body = {"environment": f"{account.name}:live"}

    def finished(accepted: httpx.Response) -> dict[str, object]:
        assert accepted.status_code == 202, accepted.text
        number = accepted.json()["id"]

        def run() -> dict[str, object] | None:
            runs = account.operator.get("/ops/index/verify").raise_for_status().json()["runs"]
            return next((each for each in runs if each["id"] == number and each["finishedAt"]), None)

        return wait_until(run, what="the run") or {}

    run_ = finished(account.operator.post("/ops/index/verify", json=body))
    assert (run_["state"], run_["causes"]) == ("done", {"missing": 1})
    assert finished(account.operator.post("/ops/index/repair", json={"run": run_["id"]}))["mended"] == 1
    account.settled()
    assert account.database.documents(account.live_environment).keys() >= {tampered}
    assert finished(account.operator.post("/ops/index/verify", json=body))["causes"] == {}
    assert account.operator.post("/ops/index/verify", json={"environment": "nobody:live"}).status_code == 400
    assert account.operator.post("/ops/index/repair", json={"run": 999999}).status_code == 400


def finished_reindex(account: Account, number: int) -> dict[str, object]:
    def find() -> dict[str, object] | None:
        runs = account.operator.get("/ops/index/reindex").raise_for_status().json()["runs"]
        return next((each for each in runs if each["id"] == number and each["finishedAt"]), None)

    return wait_until(find, what="the run") or {}


def test_reindex_over_http(account: Account) -> None:
    ids = [account.live.post("/consumers", json={"fullName": name}).json()["id"] for name in ("José", "Zoë")]
    account.settled()
    index = f"{account.database.settings.index_prefix}-000001"
    params: dict[str, Any] = {"routing": naming.routing(account.live_environment), "refresh": "true"}
    account.database.search.update(index=index, id=ids[0], body={"doc": {"deleted": True}}, params=params)
    path, filtered = "/ops/index/reindex", {"environment": f"{account.name}:live", "filter": "fullName:~o"}
    counted = account.operator.post(path, json={**filtered, "dryRun": True})
    assert (counted.status_code, counted.json()) == (200, {"consumers": 1, "isDryRun": True})
    by_ids = {"ids": ids, "updatedSince": "2020-01-01"}
    assert account.operator.post(path, json={**by_ids, "dryRun": True}).json()["consumers"] == 2
    accepted = account.operator.post(path, json=by_ids)
    assert (accepted.status_code, accepted.json()["kind"]) == (202, "reindex")
    run = finished_reindex(account, accepted.json()["id"])
    assert (run["state"], run["total"], run["compared"]) == ("done", 2, 2)
    assert run["scope"] == {"updatedSince": "2020-01-01T00:00:00Z"}


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ({}, "ids"),
        ({"filter": "email:*"}, "environment"),
        ({"environment": "nobody:live"}, "environment"),
        ({"environment": "{account}:live", "filter": "colour:red"}, "filter"),
        ({"updatedSince": "yesterday"}, "updatedSince"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_invalid_reindex_is_refused_over_http(account: Account, parameters: dict[str, str], field: str) -> None:
    body = {name: value.replace("{account}", account.name) for name, value in parameters.items()}
    response = account.operator.post("/ops/index/reindex", json=body)
    assert response.status_code == 400
    assert [fault["field"] for fault in response.json()["details"]] == [field]


@pytest.mark.parametrize(
    ("kind", "listed_at", "conditions"),
    [
        ("verify", "verify", {}),
        ("repair", "verify", {}),
        ("reindex", "reindex", {"filter": "fullName:josé", "updated_since": "2020-01-01"}),
    ],
)
def test_run_is_requested_by_a_task(
    account: Account, service: Service, kind: str, listed_at: str, conditions: dict[str, str]
) -> None:
    account.live.post("/consumers", json={"fullName": "José"}).raise_for_status()
    account.settled()
    environment = f"{account.name}:live"
    arguments = json.dumps({"environment": environment} | conditions)
    command = [sys.executable, "-m", *CELERY, "call", f"indexer.{kind}", "--kwargs", arguments]
    environ = os.environ | service.database.environ
    subprocess.run(command, env=environ, check=True, stdout=subprocess.DEVNULL)

    def is_done() -> bool:
        runs = account.operator.get(f"/ops/index/{listed_at}").raise_for_status().json()["runs"]
        return (kind, environment, 1, "done") in [
            (each["kind"], each["environment"], each["compared"], each["state"]) for each in runs
        ]

    wait_until(is_done, what="the run")


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        ("verify", {"environment": "nobody:live"}, "there is no organization"),
        ("repair", {"run": 999999}, "there is no run 999999"),
        ("reindex", {}, "choose consumers by at least one condition"),
        ("retry_parked", {"environment": "nobody:live"}, "there is no organization"),
    ],
)
def test_invalid_task_is_refused_in_the_log(
    service: Service, kind: str, arguments: dict[str, object], message: str
) -> None:
    with queue.celery(service.database.settings) as sender:
        sender.send_task(f"indexer.{kind}", kwargs=arguments)

    def is_logged() -> bool:
        lines = service.log("worker").splitlines()
        return any("request_refused" in line and f'"request":"{kind}"' in line and message in line for line in lines)

    wait_until(is_logged, what="the refusal")


def test_watch_finds_a_difference_without_a_request(service: Service, account: Account, tampered: str) -> None:
    set_position = sa.text("UPDATE verifications SET position = :position WHERE kind = 'watch' AND finished_at IS NULL")

    def is_reported() -> bool:
        # The watch visits all consumers in turn; the position is set to skip the wait.
        with account.database.engine.begin() as connection:
            connection.execute(set_position, {"position": tampered[:-1]})
        return metrics(service)["consumers_index_differences", "missing"] > 0

    # A round begins once a minute.
    wait_until(is_reported, timeout=120, what="the metric")
