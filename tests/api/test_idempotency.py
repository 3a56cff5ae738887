"""`Idempotency-Key` on every POST, PUT and DELETE: a retry returns the first success (contract.md §1)."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import msgspec
import psycopg
import pytest
import sqlalchemy as sa

from api.idempotency import OF_ENVIRONMENT
from tests.api.resources import count_rows, create, faults, stored_rows
from tests.service import Account
from tests.waiting import wait_until

KEY = "Idempotency-Key"
OUTCOME = ("etag", "consistency-token", "content-type")


def send(account: Account, method: str, path: str, body: Any, key: str, name: str = KEY) -> httpx.Response:
    return account.live.request(method, path, json=body, headers=[(name.encode(), key.encode("latin-1"))])


def post(account: Account, path: str, body: Any, key: str, name: str = KEY) -> httpx.Response:
    return send(account, "POST", path, body, key, name)


def replayable(response: httpx.Response) -> tuple[int, str, dict[str, str | None]]:
    """Return the parts of a response repeated by a retry."""
    return response.status_code, response.text, {name: response.headers.get(name) for name in OUTCOME}


def is_replay(response: httpx.Response) -> bool:
    return "true" in response.headers.get_list("Idempotent-Replayed")


def rows(account: Account) -> dict[str, list[str]]:
    return stored_rows(account.database, account.live_environment)


@pytest.fixture
def buyer(account: Account) -> str:
    return str(create(account.live, externalId="buyer")["id"])


@pytest.fixture
def friends(account: Account) -> str:
    return str(create(account.live, "/audiences", name="Friends", type="STATIC")["id"])


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/consumers", {"email": "a@example.com", "metadata": {"a": [1.5, "é"]}}),
        ("/consumers/batch", [{"email": "a@example.com"}, {"email": "b@example.com"}]),
        ("/consumers/batch", []),
        ("/orders", {"consumer": {"externalId": "buyer"}, "amount": "1.50", "externalId": "o1"}),
        ("/orders/batch", {"orders": [{"consumer": {"externalId": "buyer"}, "amount": 1, "externalId": "o1"}]}),
        ("/audiences", {"name": "Friends", "type": "STATIC"}),
        ("/audiences/{friends}/members", {"consumerIds": ["{buyer}"]}),
    ],
)
@pytest.mark.parametrize("names", [(KEY, KEY), ("X-Idempotency-Key", KEY), ("idempotency-key", "x-idempotency-key")])
def test_retry_returns_the_first_response_and_writes_nothing(
    account: Account, buyer: str, friends: str, path: str, body: Any, names: tuple[str, str]
) -> None:
    path = path.format(friends=friends)
    if path.endswith("members"):
        body = {"consumerIds": [buyer]}
    first = post(account, path, body, "k1", names[0])
    assert first.is_success, first.text
    assert not is_replay(first)
    before = rows(account)
    account.settled()
    for _ in range(2):
        again = post(account, path, body, "k1", names[1])
        assert is_replay(again)
        assert replayable(again) == replayable(first)
        assert again.headers["X-Request-Id"] != first.headers["X-Request-Id"]
        assert account.database.waiting(account.live_environment) == 0
    assert rows(account) == before


def test_response_is_replayed_unchanged_after_later_writes(account: Account) -> None:
    first = post(account, "/consumers", {"email": "a@example.com"}, "k1")
    account.live.put(f"/consumers/{first.json()['id']}", json={"email": "b@example.com"}).raise_for_status()
    assert replayable(post(account, "/consumers", {"email": "a@example.com"}, "k1")) == replayable(first)
    assert count_rows(account) == 1


def test_key_may_be_reused_after_a_refused_request(account: Account) -> None:
    create(account.live, email="taken@example.com")
    wrongs: list[Any] = [{"email": "x"}, {"email": "Taken@example.com"}, {"mail": "x"}, []]
    for wrong in wrongs:
        for _ in range(2):
            refused = post(account, "/consumers", wrong, "k1")
            assert (refused.status_code, is_replay(refused)) == (400, False)
    assert not rows(account)["idempotency_keys"]
    first = post(account, "/consumers", {"email": "a@example.com"}, "k1")
    assert first.status_code == 201
    assert replayable(post(account, "/consumers", {"email": "a@example.com"}, "k1")) == replayable(first)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/consumers", {"fullName": "B"}),
        ("/consumers", {"fullName": "A", "phone": None}),
        ("/consumers", {"email": "taken@example.com"}),
        ("/consumers/batch", [{"fullName": "A"}]),
        ("/audiences", {"name": "A", "type": "STATIC"}),
        ("/orders", {"consumer": {"externalId": "x"}, "amount": 1}),
    ],
)
def test_key_of_another_request_is_409_and_writes_nothing(account: Account, path: str, body: Any) -> None:
    create(account.live, email="taken@example.com", externalId="x")
    post(account, "/consumers", {"fullName": "A"}, "k1").raise_for_status()
    before = rows(account)
    response = post(account, path, body, "k1")
    assert (response.status_code, response.json()["error"]) == (409, "Conflict")
    assert "Idempotency-Key" in response.json()["message"]
    assert rows(account) == before


def test_query_is_a_part_of_the_request(account: Account) -> None:
    body = {"externalId": "e", "email": "a@example.com"}
    first = post(account, "/consumers/upsert?matchBy=externalId", body, "k1")
    assert first.is_success, first.text
    assert is_replay(post(account, "/consumers/upsert?matchBy=externalId", body, "k1"))
    assert post(account, "/consumers/upsert?matchBy=email", body, "k1").status_code == 409


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", "/consumers/{buyer}", {"fullName": "B", "metadata": {"a": 1}}),
        ("PUT", "/consumers/batch", [{"id": "{buyer}", "fullName": "B"}]),
        ("PUT", "/consumers/batch?onError=continue", [{"id": "{buyer}", "fullName": "B"}, {"id": "unknown"}]),
        ("PUT", "/orders/{order}", {"status": "CANCELLED"}),
        ("DELETE", "/orders/{order}", None),
        ("PUT", "/audiences/{friends}", {"name": "F"}),
        ("PUT", "/audiences/{list}/members", {"consumerIds": ["{buyer}"]}),
        ("DELETE", "/audiences/{friends}/members", {"consumerIds": ["{buyer}"]}),
        ("DELETE", "/audiences/{friends}", None),
    ],
)
def test_retry_of_a_change_returns_the_first_response(
    account: Account, buyer: str, friends: str, method: str, path: str, body: Any
) -> None:
    synced = create(account.live, "/audiences", name="List", type="SYNCED_LIST")["id"]
    order = create(account.live, "/orders", consumerId=buyer, amount=1)["id"]
    account.live.post(f"/audiences/{friends}/members", json={"consumerIds": [buyer]}).raise_for_status()
    for name, own_id in {"buyer": buyer, "order": order, "friends": friends, "list": synced}.items():
        path = path.replace(f"{{{name}}}", str(own_id))
        body = body and msgspec.json.decode(msgspec.json.encode(body).decode().replace(f"{{{name}}}", str(own_id)))
    first = send(account, method, path, body, "k1")
    assert first.is_success, first.text
    assert not is_replay(first)
    if method == "DELETE" and path == f"/audiences/{friends}":
        # A background task removes the memberships of a deleted audience, and then the audience.
        wait_until(lambda: not any(friends in row for row in rows(account)["audiences"]), what="the removal")
    before = rows(account)
    again = send(account, method, path, body, "k1")
    assert is_replay(again)
    assert replayable(again) == replayable(first)
    assert rows(account) == before
    others: list[tuple[str, str, Any]] = [
        ("POST", "/consumers", {}),
        ("PUT", f"/consumers/{buyer}", {"phone": None}),
        ("DELETE", f"/consumers/{buyer}", None),
    ]
    assert [send(account, *other, "k1").status_code for other in others] == [409] * 3
    assert rows(account) == before


def test_retry_of_a_change_ignores_its_own_effect_on_the_entity_tag(account: Account) -> None:
    made = account.live.post("/consumers", json={"fullName": "A"})
    path, tag = f"/consumers/{made.json()['id']}", {"If-Match": made.headers["ETag"], KEY: "k1"}
    first, again = (account.live.put(path, json={"fullName": "B"}, headers=tag) for _ in range(2))
    assert (first.status_code, replayable(again)) == (200, replayable(first))
    account.live.put(path, json={"fullName": "C"}).raise_for_status()
    assert replayable(account.live.put(path, json={"fullName": "B"}, headers=tag)) == replayable(first)
    assert account.live.get(path, headers=tag).json()["fullName"] == "C"


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_concurrent_retries_of_a_change_get_one_outcome(account: Account, method: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        for turn in range(3):
            path = f"/consumers/{create(account.live, fullName='A')['id']}"
            body = {"fullName": "B"} if method == "PUT" else None

            def retry(key: str, path: str = path, body: Any = body) -> httpx.Response:
                return send(account, method, path, body, key)

            responses = list(pool.map(retry, [f"{method} {turn}"] * 8))
            assert [response.status_code for response in responses] == [200] * 8
            assert sorted(map(is_replay, responses)) == [False] + [True] * 7
            assert len({response.headers["consistency-token"] for response in responses}) == 1
            assert len({response.text for response in responses if is_replay(response)}) == 1


@pytest.mark.parametrize("path", ["/consumers", "/consumers/batch", "/orders", "/audiences"])
def test_concurrent_retries_write_once_and_get_one_response(account: Account, buyer: str, path: str) -> None:
    bodies: dict[str, Any] = {
        "/consumers": {"email": "a@example.com"},
        "/consumers/batch": [{"externalId": str(n)} for n in range(100)],
        "/orders": {"consumerId": buyer, "amount": 1},
        "/audiences": {"name": "A", "type": "STATIC"},
    }
    with ThreadPoolExecutor(8) as pool:
        for turn in range(3):
            before = {name: len(names) for name, names in rows(account).items()}
            body = bodies[path] if path != "/consumers" else {"email": f"{turn}@example.com"}
            if path == "/consumers/batch":
                body = [{"externalId": f"{turn}.{n}"} for n in range(100)]
            responses = list(pool.map(lambda key, body=body: post(account, path, body, key), [f"k{turn}"] * 8))
            assert len({(response.text, response.headers["consistency-token"]) for response in responses}) == 1
            assert [response.status_code for response in responses] == [201] * 8
            assert sorted(map(is_replay, responses)) == [False] + [True] * 7
            added = {
                name: len(names) - before[name] for name, names in rows(account).items() if len(names) > before[name]
            }
            table = path.split("/")[1]
            assert added == {table: 100 if path.endswith("batch") else 1, "idempotency_keys": 1}


@pytest.mark.parametrize(
    "key", ["k", "x" * 255, "a b", "a,b", '"quoted"', "{}[];=\\'%00%s", "\xe9\xff\x80", "a\tb", "0", "null"]
)
def test_key_may_be_any_text_up_to_255_characters(account: Account, key: str) -> None:
    first = post(account, "/consumers", {}, key)
    assert first.status_code == 201
    assert replayable(post(account, "/consumers", {}, key)) == replayable(first)
    assert not is_replay(post(account, "/consumers", {}, key[:-1] + "~"))


@pytest.mark.parametrize("key", ["", "x" * 256, "x" * 5000])
@pytest.mark.parametrize("name", [KEY, "X-Idempotency-Key"])
def test_empty_or_too_long_key_is_400(account: Account, name: str, key: str) -> None:
    response = post(account, "/consumers", {}, key, name)
    assert list(faults(response)) == [name]
    assert count_rows(account) == 0


def test_keys_are_case_sensitive(account: Account) -> None:
    ids = {post(account, "/consumers", {}, key).json()["id"] for key in ("key", "KEY", "Key")}
    assert len(ids) == 3


def test_keys_are_separate_per_environment(account: Account) -> None:
    responses = [client.post("/consumers", json={}, headers={KEY: "k1"}) for client in (account.live, account.test)]
    assert [response.status_code for response in responses] == [201, 201]
    assert not any(map(is_replay, responses))
    assert responses[0].json()["id"] != responses[1].json()["id"]
    other = account.test.post("/consumers", json={"fullName": "A"}, headers={KEY: "k1"})
    assert other.status_code == 409


def age(account: Account, hours: float) -> None:
    with account.database.engine.begin() as connection:
        older = sa.text(
            "UPDATE idempotency_keys SET created_at = created_at - make_interval(secs => :s) WHERE environment_id = :id"
        )
        connection.execute(older, {"s": hours * 3600, "id": account.live_environment})


def test_reused_key_may_delete_the_consumer_of_its_first_use(account: Account) -> None:
    path = f"/consumers/{post(account, '/consumers', {'fullName': 'A'}, 'k1').json()['id']}"
    age(account, 24.1)
    for _ in range(2):
        assert account.live.delete(path, headers={KEY: "k1"}).status_code == 200


def test_key_may_be_reused_after_24_hours(account: Account) -> None:
    first = post(account, "/consumers", {"fullName": "A"}, "k1")
    age(account, 23.9)
    assert replayable(post(account, "/consumers", {"fullName": "A"}, "k1")) == replayable(first)
    age(account, 0.2)
    assert post(account, "/consumers", {"email": "x"}, "k1").status_code == 400
    second = post(account, "/consumers", {"fullName": "B"}, "k1")
    assert (second.status_code, is_replay(second)) == (201, False)
    assert replayable(post(account, "/consumers", {"fullName": "B"}, "k1")) == replayable(second)
    assert post(account, "/consumers", {"fullName": "A"}, "k1").status_code == 409


def test_concurrent_retries_of_an_expired_key_write_once(account: Account) -> None:
    post(account, "/consumers", {"fullName": "A"}, "k1").raise_for_status()
    age(account, 25)
    with ThreadPoolExecutor(8) as pool:
        responses = list(pool.map(lambda key: post(account, "/consumers", {"fullName": "B"}, key), ["k1"] * 8))
    assert {response.status_code for response in responses} == {201}
    assert len({response.text for response in responses}) == 1
    assert count_rows(account) == 2


@pytest.fixture
def refused_commits(account: Account) -> Iterator[str]:
    """A consumer's name for which the insert succeeds and the commit fails."""
    name = f"Late {account.live_environment}"
    with account.database.engine.begin() as connection:
        connection.exec_driver_sql(f"""
            CREATE FUNCTION too_late() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'late'; END $$;
            CREATE CONSTRAINT TRIGGER too_late AFTER INSERT ON consumers DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
                WHEN (NEW.full_name = '{name}') EXECUTE FUNCTION too_late()""")
    yield name
    with account.database.engine.begin() as connection:
        connection.exec_driver_sql("DROP FUNCTION too_late CASCADE")


def test_failing_commit_leaves_no_key(account: Account, refused_commits: str) -> None:
    for _ in range(2):
        response = post(account, "/consumers", {"fullName": refused_commits}, "k1")
        assert (response.status_code, is_replay(response)) == (500, False)
    assert not any(stored_rows(account.database, account.live_environment, "consumers", "idempotency_keys").values())
    assert account.database.waiting(account.live_environment) == 0
    first = post(account, "/consumers", {"fullName": "On time"}, "k1")
    assert (first.status_code, is_replay(first)) == (201, False)


def test_retry_of_a_running_request_is_409_with_retry_after(account: Account) -> None:
    """The first request is an open transaction that holds the key."""
    with psycopg.connect(account.database.settings.database_url) as first:
        claim = """INSERT INTO idempotency_keys (environment_id, key, fingerprint, status, headers, body)
                   VALUES (%s, 'k1', '', 0, '{}', '')"""
        first.execute(claim, (account.live_environment,))
        twin = post(account, "/consumers", {}, "k1")
        assert (twin.status_code, twin.json()["error"]) == (409, "Conflict")
        assert int(twin.headers["Retry-After"]) > 0
        assert post(account, "/consumers", {}, "k2").status_code == 201
        first.rollback()
    assert post(account, "/consumers", {}, "k1").status_code == 201


def test_claimed_key_cannot_be_deleted_at_the_end_of_its_24_hours(account: Account) -> None:
    """Its answer is read in a second statement, after the upkeep may have deleted keys."""
    post(account, "/consumers", {"fullName": "A"}, "k1").raise_for_status()
    values = {"owner": account.live_environment, "key": "k1", "fingerprint": b""}
    with account.database.engine.connect() as claiming, account.database.engine.connect() as upkeep:
        assert claiming.execute(OF_ENVIRONMENT.claim, values).one_or_none() is None
        upkeep.exec_driver_sql("SET LOCAL lock_timeout = '100ms'")
        with pytest.raises(sa.exc.OperationalError, match="lock timeout"):
            upkeep.execute(sa.text("DELETE FROM idempotency_keys WHERE environment_id = :owner"), values)
        assert claiming.execute(OF_ENVIRONMENT.stored, values).one().status == 201
