"""Public collections of hostile input, from the folder `shared/data` beside the project."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from infra import fields
from infra.settings import ROOT
from tests.api.resources import count_rows, create, fault_fields
from tests.service import Account, Service, new_account

DATA = ROOT.parent / "shared" / "data"
JSON = {"Content-Type": "application/json"}

pytestmark = [
    pytest.mark.shared_data,
    pytest.mark.skipif(not DATA.is_dir(), reason="the folder shared/data is not beside the project"),
]


@pytest.fixture(scope="module")
def target(service: Service) -> Iterator[Account]:
    with new_account(service) as account:
        yield account


def naughty() -> list[str]:
    lines = (DATA / "blns" / "blns.txt").read_text(encoding="utf-8").split("\n")
    return [line for line in lines if line and not line.startswith("#")]


@pytest.mark.parametrize("field", ["fullName", "externalId", "email", "phone", "metadata"])
def test_naughty_string_is_stored_as_sent_or_refused(target: Account, field: str) -> None:
    for text in naughty():
        before = count_rows(target)
        value: Any = {text[:64]: text} if field == "metadata" else text
        response = target.live.post("/consumers", json={field: value})
        assert response.status_code in {201, 400}, (text, response.text)
        assert count_rows(target) == before + (response.status_code == 201)
        if response.status_code == 201 and field in {"externalId", "metadata"}:
            stored = value if field == "metadata" else fields.trimmed(value) or None
            assert target.live.get(f"/consumers/{response.json()['id']}").json()[field] == stored
    target.settled()
    with target.database.engine.connect() as connection:
        parked = sa.text("SELECT count(*) FROM outbox WHERE environment_id = :id AND parked_at IS NOT NULL")
        assert connection.execute(parked, {"id": target.live_environment}).scalar_one() == 0


@pytest.mark.parametrize("parameter", ["search", "q", "after", "sortBy", "createdAfter", "first"])
def test_naughty_string_is_never_a_5xx_in_a_query(target: Account, parameter: str) -> None:
    path = "/consumers/search" if parameter == "q" else "/consumers"
    for text in naughty():
        response = target.live.get(path, params={parameter: text})
        assert response.status_code in {200, 400}, (text, response.text)


def texts(kind: str) -> list[Path]:
    return sorted((DATA / "json_test_suite" / "test_parsing").glob(f"{kind}_*.json"))


@pytest.mark.parametrize("file", texts("n"), ids=lambda file: file.stem)
def test_text_that_is_not_json_is_refused(target: Account, file: Path) -> None:
    before = count_rows(target)
    for path in ("/consumers", "/orders/batch"):
        response = target.live.post(path, content=file.read_bytes(), headers=JSON)
        assert (response.status_code, response.json()["error"]) == (400, "Invalid JSON")
    assert count_rows(target) == before


REFUSED = {"y_object_duplicated_key", "y_object_duplicated_key_and_value", "y_object_escaped_null_in_key",
           "y_string_null_escape"}  # fmt: skip
"""Valid JSON that is refused: duplicate keys would lose data, and PostgreSQL cannot store NUL."""


@pytest.mark.parametrize("file", texts("y"), ids=lambda file: file.stem)
def test_valid_json_is_returned_unchanged(target: Account, file: Path) -> None:
    body = b'{"metadata": {"value": ' + file.read_bytes() + b"}}"
    response = target.live.post("/consumers", content=body, headers=JSON)
    if file.stem in REFUSED:
        assert (response.status_code, response.json()["error"]) == (400, "Invalid JSON")
    else:
        assert response.status_code == 201, response.text
        shown = json.loads(response.content, parse_int=float)  # jsonb writes 1e3 out as 1000
        assert shown["metadata"]["value"] == json.loads(file.read_bytes(), parse_int=float)


@pytest.mark.parametrize("file", texts("i"), ids=lambda file: file.stem)
def test_ambiguous_json_is_accepted_or_refused(target: Account, file: Path) -> None:
    before = count_rows(target)
    body = b'{"metadata": {"value": ' + file.read_bytes() + b"}}"
    response = target.live.post("/consumers", content=body, headers=JSON)
    assert response.status_code in {201, 400}, response.text
    assert count_rows(target) == before + (response.status_code == 201)


def addresses(kind: str) -> list[str]:
    vectors = json.loads((DATA / "email_vectors" / "vectors.json").read_text(encoding="utf-8")) if DATA.is_dir() else {}
    texts = [vector if isinstance(vector, str) else vector[0] for vector in vectors.get(kind, [])]
    return [address for address in texts if len(address) > 1 and fields.trimmed(address) == address]


VALID = ("test_email_valid", "test_email_valid_intl_local_part")
INVALID = ("test_email_invalid_syntax", "test_email_invalid_syntax_strict", "test_email_invalid_syntax_display_name",
           "test_email_invalid_reserved_domain", "test_email_valid_only_if_quoted_local_part")  # fmt: skip


@pytest.mark.parametrize(
    "address", [one for kind in VALID for one in addresses(kind) if '"' not in one and "<" not in one]
)
def test_valid_email_is_stored_with_a_lower_case_domain(service: Service, address: str) -> None:
    with new_account(service) as account:
        response = account.live.post("/consumers", json={"email": address})
        local, _, domain = address.rpartition("@")
        assert response.status_code == 201, response.text
        assert response.json()["email"] == f"{local}@{domain.lower()}"


@pytest.mark.parametrize("address", [one for kind in INVALID for one in addresses(kind)])
def test_invalid_email_is_refused(target: Account, address: str) -> None:
    before = count_rows(target)
    response = target.live.post("/consumers", json={"email": address})
    assert fault_fields(response) == ["email"]
    assert count_rows(target) == before


def test_example_phone_is_stored_as_e164_and_found_in_any_form(service: Service) -> None:
    with (DATA / "phones" / "example_numbers.csv").open(encoding="utf-8", newline="") as file:
        numbers = [row for row in csv.DictReader(file) if row["valid"] == "1"][::16]
    with new_account(service) as account:
        ids = {}
        for row in numbers:
            created = create(account.live, phone=row["international"])
            assert created["phone"] == row["e164"]
            ids[row["e164"]] = created["id"]
        account.settled()
        for row in numbers:
            for form in (row["e164"], row["international"], row["national"], row["e164"].replace("+", "00")):
                for path, name in (("/consumers", "search"), ("/consumers/search", "q")):
                    rows = account.live.get(path, params={name: form, "first": 100}).json()["data"]
                    assert ids[row["e164"]] in [one["id"] for one in rows], (form, row)
