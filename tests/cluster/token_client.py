"""A client that creates, renames and deletes consumers, and reads each write with its token."""

import itertools
import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import httpx

from tests.service import NO_CERTIFICATES

SLOW_SECONDS = 2.0
"""A waited write that takes longer is slow."""
PAUSE_SECONDS = 0.1
"""Between two reads of a client that only reads."""
RECOVERY_SECONDS = 10.0
"""The figures of waited writes that begin later are printed separately."""


class Attempt(NamedTuple):
    """A read or a waited write: times in seconds after the beginning of the fault, and the result."""

    began: float
    ended: float
    result: str

    @property
    def seconds(self) -> float:
        return self.ended - self.began


class TokenClient:
    """Uses its own connections. `run` and `run_reads` end after `stop`."""

    def __init__(self, url: str, authorization: str, name: str) -> None:
        headers = {"Authorization": authorization}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=30, verify=NO_CERTIFICATES)
        self._name = name
        self._ended = threading.Event()
        self._fault_at = float("inf")
        self.missed: list[str] = []
        """Reads that silently lacked the write of their token."""
        self.failed_writes: list[str] = []
        self._reads: list[Attempt] = []
        self._waited: list[Attempt] = []

    @property
    def reads(self) -> int:
        return len(self._reads)

    def begin_fault(self) -> None:
        self._fault_at = time.monotonic()

    def seconds(self) -> float:
        """Return the time since the fault began."""
        return time.monotonic() - self._fault_at

    def stop(self) -> None:
        self._ended.set()

    def run(self) -> None:
        with self._http:
            for number in itertools.count():
                if self._ended.is_set():
                    return
                self._live_through(f"{self._name}x{number}y", waits=number % 2 == 0)

    def run_reads(self) -> None:
        """Create a consumer, and read it with its token again and again. No read waits for a write."""
        with self._http:
            created = self._write("POST", "/consumers", f"{self._name}witness", waits=True)
            while created and not self._ended.wait(PAUSE_SECONDS):
                self._read(created, f"{self._name}witness", [created.json()["id"]])

    def _live_through(self, name: str, *, waits: bool) -> None:
        """Create, rename and delete a consumer; read after each write."""
        created = self._write("POST", "/consumers", name, waits=waits)
        if created is None:
            return
        consumer = created.json()["id"]
        self._read(created, name, [consumer])
        path = f"/consumers/{consumer}"
        if renamed := self._write("PUT", path, f"{name}renamed", waits=not waits):
            self._read(renamed, f"{name}renamed", [consumer])
        if deleted := self._write("DELETE", path, None, waits=waits):
            self._read(deleted, name, [])

    def _write(self, method: str, path: str, name: str | None, *, waits: bool) -> httpx.Response | None:
        began = time.monotonic()
        headers = {"Prefer": "wait=10"} if waits else {}
        try:
            response = self._http.request(method, path, json=name and {"fullName": name}, headers=headers)
        except httpx.TransportError as error:
            self.failed_writes.append(repr(error))
            return None
        if not response.is_success:
            self.failed_writes.append(response.text)
            return None
        if waits:
            self._waited.append(self._attempt(began, response.headers["Index-State"]))
        return response

    def _read(self, written: httpx.Response, name: str, expected: list[str]) -> None:
        began = time.monotonic()
        token = {"Consistency-Token": written.headers["Consistency-Token"]}
        try:
            response = self._http.get("/consumers", params={"search": name}, headers=token)
        except httpx.TransportError:
            self._reads.append(self._attempt(began, "failed"))
            return
        if not response.is_success:
            result = "failed"
        elif response.headers.get("Index-Stale"):
            result = "stale"
        elif [row["id"] for row in response.json()["data"]] == expected:
            result = "found"
        else:
            result = "missed"
            self.missed.append(f"{name} after {self.seconds():.2f} s: {response.text}")
        self._reads.append(self._attempt(began, result))

    def _attempt(self, began: float, result: str) -> Attempt:
        return Attempt(began - self._fault_at, self.seconds(), result)

    def attempts(self) -> tuple[list[Attempt], list[Attempt]]:
        """Return the reads and the waited writes that ended after the fault began."""
        return [each for each in self._reads if each.ended > 0], [each for each in self._waited if each.ended > 0]


def summary(clients: Sequence[TokenClient]) -> str:
    """Describe the reads and the waited writes of all clients since the fault began."""
    reads = [read for client in clients for read in client.attempts()[0]]
    waited = [write for client in clients for write in client.attempts()[1]]
    slow = [write for write in waited if write.seconds > SLOW_SECONDS]
    late = [write for write in waited if write.began > RECOVERY_SECONDS]
    return (
        f"{len(reads)} reads {dict(Counter(read.result for read in reads))}, 99 % within {_percentile(reads):.1f} s; "
        f"failed {_span(reads, 'failed')}, stale {_span(reads, 'stale')}; "
        f"{len(waited)} waited writes, 99 % within {_percentile(waited):.1f} s, "
        f"over {SLOW_SECONDS:.0f} s {_span(slow)}, "
        f"after {RECOVERY_SECONDS:.0f} s {len(late)}: 99 % within {_percentile(late):.1f} s"
    )


def _span(attempts: Sequence[Attempt], result: str | None = None) -> str:
    chosen = [each for each in attempts if result in {None, each.result}]
    if not chosen:
        return "0"
    return f"{len(chosen)} from {min(each.began for each in chosen):.1f} to {max(each.ended for each in chosen):.1f} s"


def _percentile(attempts: Sequence[Attempt]) -> float:
    seconds = sorted(each.seconds for each in attempts)
    return seconds[int(len(seconds) * 0.99)] if seconds else 0.0
