"""A client that writes at random, repeats what failed until it knows the outcome, and reads its own writes."""

import random
from collections.abc import Callable
from typing import Any, NamedTuple

import httpx

from tests.service import Account
from tests.waiting import wait_until

PATIENCE_SECONDS = 120.0
BATCH = 40
UNSETTLED = {409, 500, 502, 503, 504}


class Write(NamedTuple):
    """What can be read of a write: the consumer's name, or that it is gone."""

    consumer: str
    name: str
    exists: bool
    token: str


class Client:
    """One of several. It alone changes the consumers it has made, so it knows what they must be in the end."""

    def __init__(self, account: Account, url: str, audience: str, number: int) -> None:
        self._random = random.Random(number)
        self._number, self._audience, self._steps = number, audience, 0
        self._http = httpx.Client(base_url=url, headers=account.live.headers, timeout=30)
        self.names: dict[str, str] = {}
        self.orders = self.changes = self.repeated = self.reads = self.stale = 0
        self.missed: list[str] = []
        """Reads that did not contain the write of their token, and did not say so."""
        self._last: Write | None = None

    def run(self, changes: int) -> None:
        with self._http:
            while self.changes < changes:
                self._choose()()

    def _choose(self) -> Callable[[], None]:
        steps: dict[Callable[[], None], int] = {self._create: 3, self._create_batch: 2}
        if self.names:
            steps |= {self._change: 8, self._delete: 3, self._order: 4, self._join: 2, self._leave: 1}
            steps |= {self._change_batch: 2, self._delete_batch: 1}
        if self._last:
            steps[self._read] = 2
        return self._random.choices(list(steps), list(steps.values()))[0]

    def _create(self) -> None:
        name = self._name()
        response = self._post("/consumers", {"fullName": name})
        self._wrote(response, [(response.json()["id"], name)])

    def _create_batch(self) -> None:
        names = [self._name() for _ in range(self._random.randint(1, BATCH))]
        response = self._post("/consumers/batch", [{"fullName": name} for name in names])
        self._wrote(response, list(zip([row["id"] for row in response.json()], names, strict=True)))

    def _change(self) -> None:
        consumer, name = self._any(), self._name()
        self._wrote(self._send("PUT", f"/consumers/{consumer}", {"fullName": name}), [(consumer, name)])

    def _change_batch(self) -> None:
        chosen = self._random.sample(list(self.names), min(len(self.names), self._random.randint(1, BATCH)))
        given = [(consumer, self._name()) for consumer in chosen]
        body = [{"id": consumer, "fullName": name} for consumer, name in given]
        self._wrote(self._send("PUT", "/consumers/batch", body), given)

    def _delete(self) -> None:
        consumer = self._any()
        response = self._send("DELETE", f"/consumers/{consumer}", gone=True)
        name = self.names.pop(consumer)
        self.changes += 1
        # After a repetition the answer may be that it is gone, without a token.
        if token := response.headers.get("Consistency-Token"):
            self._last = Write(consumer, name, exists=False, token=token)

    def _delete_batch(self) -> None:
        for _ in range(min(len(self.names), BATCH // 2)):
            self._delete()

    def _order(self) -> None:
        body = {"consumerId": self._any(), "amount": self._random.randint(1, 100), "currencyCode": "USD"}
        self._post("/orders", body)
        self.orders += 1
        self.changes += 1

    def _join(self) -> None:
        self._members("POST")

    def _leave(self) -> None:
        self._members("DELETE")

    def _members(self, method: str) -> None:
        chosen = self._random.sample(list(self.names), min(len(self.names), 5))
        response = self._send(method, f"/audiences/{self._audience}/members", {"consumerIds": chosen})
        self.changes += sum(value for name, value in response.json().items() if name.endswith("Count"))

    def _read(self) -> None:
        assert self._last
        last, asked = self._last, {"search": self._last.name}
        try:
            response = self._http.get("/consumers", params=asked, headers={"Consistency-Token": last.token})
        except httpx.TransportError:
            return
        if response.status_code != httpx.codes.OK:
            assert response.status_code in UNSETTLED, response.text
            return
        self.reads += 1
        self.stale += (is_stale := response.headers.get("Index-Stale") == "true")
        exists = any(row["id"] == last.consumer and row["fullName"] == last.name for row in response.json()["data"])
        if exists != last.exists and not is_stale:
            self.missed.append(f"{last}: {response.text}")

    def _wrote(self, response: httpx.Response, given: list[tuple[str, str]]) -> None:
        self.names |= dict(given)
        self.changes += len(given)
        self._last = Write(*given[-1], exists=True, token=response.headers["Consistency-Token"])

    def _post(self, path: str, body: Any) -> httpx.Response:
        return self._send("POST", path, body, {"Idempotency-Key": f"{self._number}-{self._steps}-{self.changes}"})

    def _send(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None, *, gone: bool = False
    ) -> httpx.Response:
        """Send it, again and again until its outcome is known."""
        self._steps += 1
        tries = 0

        def attempt() -> httpx.Response | None:
            nonlocal tries
            tries += 1
            try:
                response = self._http.request(method, path, json=body, headers=headers)
            except httpx.TransportError:
                return None
            if response.status_code in UNSETTLED:
                return None
            assert response.is_success or (gone and tries > 1 and response.status_code == httpx.codes.NOT_FOUND), (
                response.text
            )
            return response

        response = wait_until(
            lambda: [found] if (found := attempt()) is not None else [], PATIENCE_SECONDS, "an answer"
        )
        self.repeated += tries - 1
        return response[0]

    def _any(self) -> str:
        return self._random.choice(list(self.names))

    def _name(self) -> str:
        """One that no other search finds."""
        self._steps += 1
        return f"n{self._number}x{self._steps}y"
