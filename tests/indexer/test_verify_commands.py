"""`consumers index verify` and `repair`, with a worker at work as in the whole service."""

import json
import os
import subprocess
import sys

import httpx
import pytest
import sqlalchemy as sa

from infra import queue
from tests.cli import Consumers, commands
from tests.service import CELERY, Account, Service
from tests.waiting import wait_until


@pytest.fixture
def consumers(service: Service, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Consumers:
    return commands(service.database, monkeypatch, capsys)


@pytest.fixture
def tampered(account: Account) -> str:
    """A consumer whose document somebody has removed."""
    name = account.live.post("/consumers", json={"fullName": "José"}).raise_for_status().json()["id"]
    account.live.post("/consumers", json={"fullName": "Zoë"}).raise_for_status()
    account.settled()
    index = f"{account.database.settings.index_prefix}-000001"
    account.database.search.delete(index=index, id=name, params={"refresh": "true"})
    return str(name)


def test_verify_has_exit_code_1_for_differences_until_repaired(
    account: Account, tampered: str, consumers: Consumers
) -> None:
    place = ("--environment", f"{account.name}:live")
    said = consumers("index", "verify", *place, "--json")
    assert said.code == 1
    found = json.loads(said.out)
    assert [(each["documentId"], each["cause"]) for each in found["found"]] == [(tampered, "missing")]
    assert (found["compared"], found["environment"]) == (2, f"{account.name}:live")
    table = consumers("index", "verify", *place)
    assert table.code == 1
    assert tampered in table.out
    mended = consumers("index", "repair", "--run", str(found["id"]))
    assert mended.code == 0
    account.settled()
    clean = consumers("index", "verify", *place)
    assert (clean.code, "all agree" in clean.out) == (0, True)


def test_verify_of_one_environment_ignores_the_others(account: Account, tampered: str, consumers: Consumers) -> None:
    assert tampered
    assert consumers("index", "verify", "--environment", f"{account.name}:test").code == 0


def test_unknown_run_cannot_be_repaired(consumers: Consumers) -> None:
    said = consumers("index", "repair", "--run", "999999")
    assert (said.code, said.err) == (1, "there is no run 999999\n")
    assert consumers("index", "verify", "--environment", "nobody:live").code == 1


def test_verify_and_repair_over_http(account: Account, tampered: str) -> None:
    place = {"environment": f"{account.name}:live"}

    def ended(started: httpx.Response) -> dict[str, object]:
        assert started.status_code == 202, started.text
        number = started.json()["id"]

        def run() -> dict[str, object] | None:
            runs = account.live.get("/ops/index/verify").raise_for_status().json()["runs"]
            return next((each for each in runs if each["id"] == number and each["finishedAt"]), None)

        return wait_until(run, what="the run") or {}

    found = ended(account.live.post("/ops/index/verify", json=place))
    assert (found["state"], found["causes"]) == ("done", {"missing": 1})
    assert ended(account.live.post("/ops/index/repair", json={"run": found["id"]}))["mended"] == 1
    account.settled()
    assert account.database.documents(account.live_environment).keys() >= {tampered}
    assert ended(account.live.post("/ops/index/verify", json=place))["causes"] == {}
    assert account.live.post("/ops/index/verify", json={"environment": "nobody:live"}).status_code == 400
    assert account.live.post("/ops/index/repair", json={"run": 999999}).status_code == 400


def reindexed(account: Account, number: int) -> dict[str, object]:
    def run() -> dict[str, object] | None:
        runs = account.live.get("/ops/index/reindex").raise_for_status().json()["runs"]
        return next((each for each in runs if each["id"] == number and each["finishedAt"]), None)

    return wait_until(run, what="the run") or {}


def test_reindex_over_http(account: Account) -> None:
    made = [account.live.post("/consumers", json={"fullName": name}).json()["id"] for name in ("José", "Zoë")]
    account.settled()
    index = f"{account.database.settings.index_prefix}-000001"
    account.database.search.update(index=index, id=made[0], body={"doc": {"deleted": True}}, params={"refresh": "true"})
    path, wanted = "/ops/index/reindex", {"environment": f"{account.name}:live", "filter": "fullName:~o"}
    counted = account.live.post(path, json={**wanted, "dryRun": True})
    assert (counted.status_code, counted.json()) == (200, {"consumers": 1, "isDryRun": True})
    chosen = {"ids": made, "updatedSince": "2020-01-01"}
    assert account.live.post(path, json={**chosen, "dryRun": True}).json()["consumers"] == 2
    asked = account.live.post(path, json=chosen)
    assert (asked.status_code, asked.json()["kind"]) == (202, "reindex")
    run = reindexed(account, asked.json()["id"])
    assert (run["state"], run["total"], run["compared"]) == ("done", 2, 2)
    assert run["scope"] == {"updatedSince": "2020-01-01T00:00:00Z"}


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        ({}, "ids"),
        ({"filter": "email:*"}, "environment"),
        ({"environment": "nobody:live"}, "environment"),
        ({"environment": "{account}:live", "filter": "colour:red"}, "filter"),
        ({"updatedSince": "yesterday"}, "updatedSince"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_invalid_reindex_is_refused_over_http(account: Account, wanted: dict[str, str], field: str) -> None:
    body = {name: value.replace("{account}", account.name) for name, value in wanted.items()}
    response = account.live.post("/ops/index/reindex", json=body)
    assert response.status_code == 400
    assert [fault["field"] for fault in response.json()["details"]] == [field]


@pytest.mark.parametrize(
    ("kind", "told", "more"),
    [
        ("verify", "verify", {}),
        ("repair", "verify", {}),
        ("reindex", "reindex", {"filter": "fullName:josé", "updated_since": "2020-01-01"}),
    ],
)
def test_run_is_requested_by_a_task(
    account: Account, service: Service, kind: str, told: str, more: dict[str, str]
) -> None:
    account.live.post("/consumers", json={"fullName": "José"}).raise_for_status()
    account.settled()
    place = f"{account.name}:live"
    arguments = json.dumps({"environment": place} | more)
    command = [sys.executable, "-m", *CELERY, "call", f"indexer.{kind}", "--kwargs", arguments]
    environ = os.environ | service.database.environ
    subprocess.run(command, env=environ, check=True, stdout=subprocess.DEVNULL)

    def done() -> bool:
        runs = account.live.get(f"/ops/index/{told}").raise_for_status().json()["runs"]
        return (kind, place, 1, "done") in [
            (each["kind"], each["environment"], each["compared"], each["state"]) for each in runs
        ]

    wait_until(done, what="the run")


@pytest.mark.parametrize(
    ("kind", "wanted", "told"),
    [
        ("verify", {"environment": "nobody:live"}, "there is no organization"),
        ("repair", {"run": 999999}, "there is no run 999999"),
        ("reindex", {}, "choose consumers by at least one condition"),
    ],
)
def test_invalid_task_is_refused_in_the_log(service: Service, kind: str, wanted: dict[str, object], told: str) -> None:
    with queue.celery(service.database.settings) as sender:
        sender.send_task(f"indexer.{kind}", kwargs=wanted)

    def is_told() -> bool:
        lines = service.log("worker").splitlines()
        return any("request_refused" in line and f'"request":"{kind}"' in line and told in line for line in lines)

    wait_until(is_told, what="the refusal")


def test_watch_finds_a_difference_without_a_request(account: Account, tampered: str) -> None:
    here = sa.text("UPDATE verifications SET position = :position WHERE kind = 'watch' AND finished_at IS NULL")

    def told() -> bool:
        # It comes round to all of them; this one need not wait for the others' turn.
        with account.database.engine.begin() as connection:
            connection.execute(here, {"position": tampered[:-1]})
        return (
            'consumers_index_differences{cause="missing"} 0.0'
            not in httpx.get(f"{account.live.base_url.copy_with(path='/metrics')}").text
        )

    wait_until(told, timeout=60, what="the metric")
