"""A client that writes while servers fail, and that remembers each answer and each open outcome."""

import random
import threading
from typing import NamedTuple

import httpx

from tests.service import NO_CERTIFICATES

NOT_KNOWN = {500, 502, 503, 504}
READ = {"Prefer": "wait=2"}


class Accepted(NamedTuple):
    """A write with a successful response."""

    consumer: str
    name: str | None
    """None: the consumer was deleted."""
    token: str
    etag: str | None


class FailoverClient:
    """Changes only its own consumers. A failed request leaves the outcome open; only those with a key are repeated."""

    def __init__(self, url: str, key: str, number: int) -> None:
        self._http = httpx.Client(
            base_url=url, headers={"Authorization": key}, timeout=20, verify=NO_CERTIFICATES, trust_env=False
        )
        self._random, self._number, self._step = random.Random(number), number, 0
        self._is_over = threading.Event()
        self.accepted: list[Accepted] = []
        self.possible: dict[str, set[str | None]] = {}
        """For each consumer the names that the database may hold, by the responses."""
        self.keyed: dict[str, str] = {}
        """Names of consumers whose POST has an open outcome, by idempotency key."""
        self.unknown = 0

    def run(self) -> None:
        """Write until `stop`."""
        while not self._is_over.is_set():
            self._random.choice([self._create, self._create, self._rename, self._rename, self._delete])()

    def stop(self) -> None:
        self._is_over.set()

    def close(self) -> None:
        self._http.close()

    def repeat_keyed(self) -> None:
        """Repeat each POST with an open outcome, with its key."""
        for key, name in list(self.keyed.items()):
            self._post(key, name)

    def read(self, write: Accepted) -> httpx.Response:
        """Search the name of a write with its token."""
        headers = {"Consistency-Token": write.token} | READ
        return self._http.get("/consumers", params={"search": write.name or ""}, headers=headers)

    def change_if_match(self, write: Accepted) -> int:
        """Change the consumer if it still is as the response said; return the status."""
        headers, body = {"If-Match": write.etag or ""}, {"fullName": "Overwritten"}
        return self._http.put(f"/consumers/{write.consumer}", json=body, headers=headers).status_code

    def _create(self) -> None:
        key = f"{self._number}-{self._step}" if self._random.random() < 0.5 else None
        self._post(key, self._new_name())

    def _post(self, key: str | None, name: str) -> None:
        response = self._send("POST", "/consumers", name, {"Idempotency-Key": key} if key else {})
        if response is None:
            if key:
                self.keyed[key] = name
            return
        assert response.status_code == httpx.codes.CREATED, response.text
        self.keyed.pop(key or "", None)
        consumer = response.json()["id"]
        self.possible[consumer] = {name}
        self._accept(response, consumer, name)

    def _rename(self) -> None:
        if not (consumer := self._any_consumer()):
            return
        name = self._new_name()
        response = self._send("PUT", f"/consumers/{consumer}", name)
        if response is None:
            self.possible[consumer].add(name)
        elif response.is_success:
            self.possible[consumer] = {name}
            self._accept(response, consumer, name)
        else:
            self._assert_gone(response, consumer)

    def _delete(self) -> None:
        if not (consumer := self._any_consumer()):
            return
        response = self._send("DELETE", f"/consumers/{consumer}", None)
        if response is None:
            self.possible[consumer].add(None)
        elif response.is_success:
            self.possible[consumer] = {None}
            self._accept(response, consumer, None)
        else:
            self._assert_gone(response, consumer)

    def _assert_gone(self, response: httpx.Response, consumer: str) -> None:
        """A consumer may be gone by a DELETE with an open outcome."""
        assert response.status_code == httpx.codes.NOT_FOUND, response.text
        assert None in self.possible[consumer], f"{consumer} is lost"
        self.possible[consumer] = {None}

    def _accept(self, response: httpx.Response, consumer: str, name: str | None) -> None:
        token = response.headers["Consistency-Token"]
        self.accepted.append(Accepted(consumer, name, token, response.headers.get("ETag")))

    def _any_consumer(self) -> str | None:
        living = [consumer for consumer, names in self.possible.items() if names != {None}]
        return self._random.choice(living) if living else None

    def _send(
        self, method: str, path: str, name: str | None, headers: dict[str, str] | None = None
    ) -> httpx.Response | None:
        """Return the response, or None if the outcome is not known."""
        self._step += 1
        try:
            response = self._http.request(method, path, json=name and {"fullName": name}, headers=headers)
        except httpx.TransportError:
            response = None
        if response is None or response.status_code in NOT_KNOWN:
            self.unknown += 1
            return None
        return response

    def _new_name(self) -> str:
        """Return a name not found by any other search."""
        self._step += 1
        return f"n{self._number}x{self._step}y"
