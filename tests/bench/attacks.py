"""Loads that a merchant can put on the service with a valid key, at the rates which the limits of the key allow.

Each attack prepares data with the key of a new merchant, and returns a load, which runs in another process.
"""

import string
from collections.abc import Callable, Sequence
from functools import cache, partial
from random import Random
from typing import Any, NamedTuple

from infra.accounts.key_secrets import new_secret
from tests.bench import population, wire
from tests.bench.crowd import Rows, crowd
from tests.bench.loads import Held, Load, Requests
from tests.bench.victim import Merchant
from tests.service import Account

LIMITS = {"reads": 1000, "writes": 500, "batch": 100}
"""Requests per minute: the defaults of the service."""
READ_SECONDS, BATCH_SECONDS = (60 / LIMITS[name] for name in ("reads", "batch"))
BATCH = 500
LARGE_BATCHES, METADATA_KEYS, METADATA_LETTERS = 12, 30, 500
CONNECTIONS = 320
LIVE = "sk_live_"
HALF_SENT_BYTES = 200_000

Prepare = Callable[[Account, Merchant], Load]


class Attack(NamedTuple):
    about: str
    prepare: Prepare


def typos(every: float, burst: int, _: Account, merchant: Merchant) -> Load:
    return Requests(merchant.url, partial(_typos, merchant), every=every, burst=burst)


def _typos(merchant: Merchant, number: int) -> bytes:
    # The text may have 300 characters.
    words = "+".join(_letters(Random(number * 6 + word), 49) for word in range(6))
    return merchant.get(f"/consumers/search?q={words}&explain=true")


def large_metadata(account: Account, merchant: Merchant) -> Load:
    ids = create_consumers(account, BATCH * LARGE_BATCHES)
    make = partial(_large_metadata, merchant, ids)
    return Requests(merchant.url, make, every=3600, burst=LARGE_BATCHES, clients=4)


def names_beside_large_metadata(account: Account, merchant: Merchant) -> Load:
    """The consumers have large metadata already, and small requests change the names only."""
    ids = create_consumers(account, 2 * BATCH)
    for number in range(2):
        assert account.live.put("/consumers/batch", json=_with_large_metadata(ids, number)).status_code == 200
    return Requests(merchant.url, partial(_names, merchant, ids), every=BATCH_SECONDS)


def _large_metadata(merchant: Merchant, ids: Sequence[str], number: int) -> bytes:
    return merchant.write("PUT", "/consumers/batch", _with_large_metadata(ids, number))


def _with_large_metadata(ids: Sequence[str], number: int) -> list[dict[str, Any]]:
    return [{"id": each, "metadata": _metadata(index)} for index, each in _batch_of(ids, number)]


def _names(merchant: Merchant, ids: Sequence[str], number: int) -> bytes:
    batch = [{"id": each, "fullName": f"{index} {number} Name"} for index, each in _batch_of(ids, number)]
    return merchant.write("PUT", "/consumers/batch", batch)


def _batch_of(ids: Sequence[str], number: int) -> list[tuple[int, str]]:
    first = number * BATCH % len(ids)
    return list(enumerate(ids[first : first + BATCH], first))


def _metadata(number: int) -> dict[str, str]:
    """Return 15 KB of words, different for each number."""
    text = _words()
    starts = (((number * METADATA_KEYS + key) * 7919) % (len(text) - METADATA_LETTERS) for key in range(METADATA_KEYS))
    return {f"key{key}": text[start : start + METADATA_LETTERS].strip() for key, start in enumerate(starts)}


@cache
def _words() -> str:
    random = Random(1)
    return " ".join(_letters(random, random.randint(3, 9)) for _ in range(100_000))


def unknown_keys(_: Account, merchant: Merchant) -> Load:
    """9.9 MB, as a single object and as an item of a batch in turn."""
    unknown = "{" + ",".join(f'"k{number:06}":1' for number in range(825_000)) + "}"
    headers = f"Authorization: Bearer {merchant.key}\r\n"
    requests = [
        wire.send("POST", merchant.url, f"/api/v1{path}", body.encode(), headers)
        for path, body in (("/consumers", unknown), ("/consumers/batch", f"[{unknown}]"))
    ]
    return Requests(merchant.url, partial(_in_turn, requests), every=BATCH_SECONDS, clients=4)


def bad_items(_: Account, merchant: Merchant) -> Load:
    request = merchant.write("POST", "/orders/batch", [{"items": [{"q": 1}] * 200}] * 500)
    return Requests(merchant.url, partial(_same, request), every=BATCH_SECONDS)


def international_domains(_: Account, merchant: Merchant) -> Load:
    return Requests(merchant.url, partial(_international_domains, merchant), every=BATCH_SECONDS)


def _international_domains(merchant: Merchant, number: int) -> bytes:
    """Return a batch of addresses with different domains. Nothing is stored, because the last item is faulty."""
    emails = [f"a@bücher-{number}-{place}.straße-größe-{place}.com" for place in range(BATCH - 1)]
    return merchant.write("POST", "/consumers/batch", [{"email": each} for each in [*emails, "none"]])


def dynamic_audiences(audiences: int, account: Account, merchant: Merchant) -> Load:
    create_consumers(account, BATCH)
    for number in range(audiences):
        random = Random(number)
        rules = [_rule("fullName", "CONTAINS", [_letters(random, 4)], group=f"g{index}") for index in range(50)]
        if not _create_largest_audience(account, rules):
            break
    request = merchant.get("/consumers?first=100&include=audiences")
    return Requests(merchant.url, partial(_same, request), every=READ_SECONDS)


def wide_rules(account: Account, merchant: Merchant) -> Load:
    for number in range(24):
        random = Random(number)
        values = [_letters(random, 250) for _ in range(100)]
        rules = [_rule("externalId", "IN", values, group=f"g{index}") for index in range(50)]
        if not _create_largest_audience(account, rules):
            break
    request = merchant.get("/audiences?first=100")
    return Requests(merchant.url, partial(_same, request), every=READ_SECONDS)


def _rule(field: str, operator: str, values: list[str], *, group: str) -> dict[str, Any]:
    return {"field": field, "operator": operator, "values": values, "groupId": group}


def _create_largest_audience(account: Account, rules: list[dict[str, Any]]) -> bool:
    """Create a dynamic audience with as many of the rules as the service accepts: all, half, a quarter, …"""
    while rules:
        body = {"name": "rules", "type": "DYNAMIC", "rules": rules}
        if account.live.post("/audiences", json=body).status_code == 201:
            return True
        rules = rules[: len(rules) // 2]
    return False


def silent_connections(_: Account, merchant: Merchant) -> Load:
    return Held(merchant.url, b"", CONNECTIONS)


def half_sent_bodies(_: Account, merchant: Merchant) -> Load:
    request = merchant.write("POST", "/consumers", {"fullName": "x" * HALF_SENT_BYTES})
    return Held(merchant.url, request[: -HALF_SENT_BYTES // 2], CONNECTIONS)


def replaced_members(account: Account, merchant: Merchant) -> Load:
    ids = create_consumers(account, 10 * BATCH)
    audience = account.live.post("/audiences", json={"name": "list", "type": "SYNCED_LIST"}).json()["id"]
    make = partial(_replaced_members, merchant, audience, ids)
    return Requests(merchant.url, make, every=10, burst=150, clients=150)


def _replaced_members(merchant: Merchant, audience: str, ids: Sequence[str], number: int) -> bytes:
    index = number % len(ids)
    body = {"consumerIds": [*ids[:index], *ids[index + 1 :]]}
    return merchant.write("PUT", f"/audiences/{audience}/members", body)


def random_keys(_: Account, merchant: Merchant) -> Load:
    return Requests(merchant.url, partial(_random_key, merchant), every=1 / 62)


def _random_key(merchant: Merchant, number: int) -> bytes:
    """Return a request with an unknown key, which is well-formed every other time."""
    secret = new_secret(LIVE)
    key = secret if number % 2 else LIVE + _letters(Random(number), len(secret) - len(LIVE))
    return merchant._replace(key=key).get("/consumers?first=20")


def metrics(_: Account, merchant: Merchant) -> Load:
    paths = ("/metrics", "//metrics", "/%6detrics")
    requests = [wire.get(merchant.url, path, merchant.key) for path in paths]
    return Requests(merchant.url, partial(_in_turn, requests), every=1 / 17)


def writing_environments(account: Account, _: Merchant) -> Load:
    """Insert rows with SQL, because the API on the same cores would be the limit."""
    return Rows(account.database.settings.database_url, *crowd(account.database), every=0.5)


def _same(request: bytes, _: int) -> bytes:
    return request


def _in_turn(requests: Sequence[bytes], number: int) -> bytes:
    return requests[number % len(requests)]


def _letters(random: Random, number: int) -> str:
    return "".join(random.choices(string.ascii_lowercase, k=number))


def create_consumers(account: Account, number: int) -> list[str]:
    """Create consumers with names, e-mail addresses and phone numbers; return their ids."""
    ids: list[str] = []
    for first in range(0, number, BATCH):
        people = population.people(account.live_environment, first, first + BATCH, number)
        body = [{"email": row.email, "phone": row.phone, "fullName": row.full_name} for row, _ in people]
        response = account.live.post("/consumers/batch", json=body)
        assert response.status_code == 201, response.text
        ids += [each["id"] for each in response.json()]
    return ids


ATTACKS = {
    "typos": Attack("search of six words of 49 letters with explain, 3 per second", partial(typos, 1 / 3, 1)),
    "typos-at-once": Attack("12 such searches at once, every 10 seconds", partial(typos, 10, 12)),
    "large-metadata": Attack("12 batches of 500 consumers with 15 KB of metadata", large_metadata),
    "names": Attack("new names of 500 such consumers, 100 batches per minute", names_beside_large_metadata),
    "unknown-keys": Attack("9.9 MB of unknown keys, 100 batches per minute", unknown_keys),
    "bad-items": Attack("500 orders of 200 bad items, 100 batches per minute", bad_items),
    "domains": Attack("500 internationalized domains, 100 batches per minute", international_domains),
    **{
        f"audiences-{number}": Attack(
            f"include=audiences with {number} audiences of 50 CONTAINS rules, 1,000 per minute",
            partial(dynamic_audiences, number),
        )
        for number in (10, 100, 300)
    },
    "wide-rules": Attack("GET /audiences with 24 audiences of 5,000 values of 250 characters", wide_rules),
    "silent": Attack("320 connections without a request", silent_connections),
    "half-sent": Attack("320 connections with half a body, and a byte per second", half_sent_bodies),
    "members": Attack("150 PUT members of one audience at once, every 10 seconds", replaced_members),
    "random-keys": Attack("62 unknown keys per second", random_keys),
    "metrics": Attack("17 requests per second for /metrics on the API's port", metrics),
    "environments": Attack("1,100 environments with 2 writes per second each", writing_environments),
}
