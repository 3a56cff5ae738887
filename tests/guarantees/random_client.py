"""A client writing at random: repeats failed requests until the outcome is known, and reads its own writes."""

import math
import random
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import httpx

from tests.service import Account
from tests.waiting import wait_until

PATIENCE_SECONDS = 120.0
BATCH = 40
UNSETTLED = {409, 500, 502, 503, 504}


class Write(NamedTuple):
    """The readable effect of a write: the consumer's name, or its absence."""

    consumer: str
    name: str
    exists: bool
    token: str


class RandomClient:
    """A client changing only its own consumers, so that the expected final state is known."""

    def __init__(self, account: Account, url: str, audience: str, number: int) -> None:
        self._random = random.Random(number)
        self._number, self._audience, self._steps = number, audience, 0
        self._url, self._headers = url, account.live.headers
        self._http = self._connect()
        self.names: dict[str, str] = {}
        self.orders = self.changes = self.repeated = self.reads = self.stale = 0
        self.failed_reads: list[str] = []
        self.missed: list[str] = []
        """Reads without the write of their token and without `Index-Stale`."""
        self._last: Write | None = None
        self._is_stopped = self._reconnects = False

    def run(self, changes: float = math.inf) -> None:
        """Write until there are so many changes, or until stopped."""
        try:
            while self.changes < changes and not self._is_stopped:
                if self._reconnects:
                    self._http.close()
                    self._http, self._reconnects = self._connect(), False
                self._next_action()()
        finally:
            self._http.close()

    def stop(self) -> None:
        self._is_stopped = True

    def reconnect(self) -> None:
        """Open a new connection after the present request."""
        self._reconnects = True

    def _connect(self) -> httpx.Client:
        return httpx.Client(base_url=self._url, headers=self._headers, timeout=30)

    def _next_action(self) -> Callable[[], None]:
        steps: dict[Callable[[], None], int] = {self._create: 3, self._create_batch: 2}
        if self.names:
            steps |= {self._change: 8, self._delete: 3, self._order: 4, self._join: 2, self._leave: 1}
            steps |= {self._change_batch: 2, self._delete_batch: 1}
        if self._last:
            steps[self._read] = 2
        return self._random.choices(list(steps), list(steps.values()))[0]

    def _create(self) -> None:
        name = self._new_name()
        response = self._post("/consumers", {"fullName": name})
        self._record(response, [(response.json()["id"], name)])

    def _create_batch(self) -> None:
        names = [self._new_name() for _ in range(self._random.randint(1, BATCH))]
        response = self._post("/consumers/batch", [{"fullName": name} for name in names])
        self._record(response, list(zip([row["id"] for row in response.json()], names, strict=True)))

    def _change(self) -> None:
        consumer, name = self._random_consumer(), self._new_name()
        self._record(self._send("PUT", f"/consumers/{consumer}", {"fullName": name}), [(consumer, name)])

    def _change_batch(self) -> None:
        chosen = self._random.sample(list(self.names), min(len(self.names), self._random.randint(1, BATCH)))
        written = [(consumer, self._new_name()) for consumer in chosen]
        body = [{"id": consumer, "fullName": name} for consumer, name in written]
        self._record(self._send("PUT", "/consumers/batch", body), written)

    def _delete(self) -> None:
        consumer = self._random_consumer()
        response = self._send("DELETE", f"/consumers/{consumer}", gone=True)
        name = self.names.pop(consumer)
        self.changes += 1
        # The response to a repeated delete may be 404, without a token.
        if token := response.headers.get("Consistency-Token"):
            self._last = Write(consumer, name, exists=False, token=token)

    def _delete_batch(self) -> None:
        for _ in range(min(len(self.names), BATCH // 2)):
            self._delete()

    def _order(self) -> None:
        body = {"consumerId": self._random_consumer(), "amount": self._random.randint(1, 100), "currencyCode": "USD"}
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
        last, parameters = self._last, {"search": self._last.name}
        try:
            response = self._http.get("/consumers", params=parameters, headers={"Consistency-Token": last.token})
        except httpx.TransportError as error:
            self.failed_reads.append(repr(error))
            return
        if response.status_code != httpx.codes.OK:
            assert response.status_code in UNSETTLED, response.text
            self.failed_reads.append(response.text)
            return
        self.reads += 1
        self.stale += (is_stale := response.headers.get("Index-Stale") == "true")
        exists = any(row["id"] == last.consumer and row["fullName"] == last.name for row in response.json()["data"])
        if exists != last.exists and not is_stale:
            self.missed.append(f"{last}: {response.text}")

    def _record(self, response: httpx.Response, written: list[tuple[str, str]]) -> None:
        self.names |= dict(written)
        self.changes += len(written)
        self._last = Write(*written[-1], exists=True, token=response.headers["Consistency-Token"])

    def _post(self, path: str, body: Any) -> httpx.Response:
        return self._send("POST", path, body, {"Idempotency-Key": f"{self._number}-{self._steps}-{self.changes}"})

    def _send(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None, *, gone: bool = False
    ) -> httpx.Response:
        """Send a request, and repeat until the outcome is known."""
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
            lambda: [accepted] if (accepted := attempt()) is not None else [], PATIENCE_SECONDS, "a response"
        )
        self.repeated += tries - 1
        return response[0]

    def _random_consumer(self) -> str:
        return self._random.choice(list(self.names))

    def _new_name(self) -> str:
        """Return a name not found by any other search."""
        self._steps += 1
        return f"n{self._number}x{self._steps}y"


def wait_for_changes(clients: Sequence[RandomClient], number: int) -> None:
    """Wait until the clients have made so many further changes."""
    goal = sum(client.changes for client in clients) + number
    wait_until(lambda: sum(client.changes for client in clients) >= goal, PATIENCE_SECONDS, f"{number} changes")
