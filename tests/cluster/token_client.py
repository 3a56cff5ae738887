"""A client that creates consumers and reads each one with its token, and notes when reads fail or are slow."""

import threading
import time
from collections import Counter
from typing import NamedTuple

import httpx

from tests.service import NO_CERTIFICATES, Account


class Attempt(NamedTuple):
    """A read: when it ended, relative to the fault, how long it took, and the result."""

    at: float
    seconds: float
    result: str


class TokenClient:
    """Uses its own connections. `run` ends after `stop`."""

    def __init__(self, account: Account, name: str) -> None:
        self._http = httpx.Client(
            base_url=account.live.base_url, headers=account.live.headers, timeout=30, verify=NO_CERTIFICATES
        )
        self._name = name
        self._ended = threading.Event()
        self._fault_at = time.monotonic()
        self._is_fault = False
        self.missed: list[str] = []
        """Reads that silently lacked the write of their token."""
        self.failed_writes: list[str] = []
        self._attempts: list[Attempt] = []
        self._waited: list[Attempt] = []

    @property
    def reads(self) -> int:
        return len(self._attempts)

    def begin_fault(self) -> None:
        self._fault_at, self._is_fault = time.monotonic(), True

    def seconds(self) -> float:
        """Return the time since the fault began."""
        return time.monotonic() - self._fault_at

    def stop(self) -> None:
        self._ended.set()

    def run(self) -> None:
        number = 0
        with self._http:
            while not self._ended.is_set():
                number += 1
                self._step(f"{self._name}x{number}y", waits=number % 2 == 0)

    def _step(self, name: str, *, waits: bool) -> None:
        started = time.monotonic()
        headers = {"Prefer": "wait=10"} if waits else {}
        written = self._http.post("/consumers", json={"fullName": name}, headers=headers)
        if not written.is_success:
            self.failed_writes.append(written.text)
            return
        if waits:
            self._waited.append(self._attempt(started, written.headers["Index-State"]))
        started = time.monotonic()
        token = {"Consistency-Token": written.headers["Consistency-Token"]}
        read = self._http.get("/consumers", params={"search": name}, headers=token)
        if not read.is_success:
            result = str(read.status_code)
        elif read.headers.get("Index-Stale"):
            result = "stale"
        elif [row["id"] for row in read.json()["data"]] == [written.json()["id"]]:
            result = "found"
        else:
            result = "missed"
            self.missed.append(f"{name} after {self.seconds():.2f} s: {read.text}")
        self._attempts.append(self._attempt(started, result))

    def _attempt(self, started: float, result: str) -> Attempt:
        return Attempt(self.seconds() if self._is_fault else 0.0, time.monotonic() - started, result)

    def summary(self) -> str:
        """Describe the reads and waited writes since the fault."""
        during = [attempt for attempt in self._attempts if attempt.at > 0]
        failed = [attempt.at for attempt in during if attempt.result != "found"]
        waited = [attempt for attempt in self._waited if attempt.at > 0]
        late = [attempt.at for attempt in waited if attempt.seconds > 2]
        results = dict(Counter(attempt.result for attempt in during))
        slowest = max((attempt.seconds for attempt in during), default=0)
        return (
            f"{self._name}: {len(during)} reads {results}, slowest {slowest:.1f} s, "
            f"failed or stale {_span(failed)}; {len(waited)} waited writes, over 2 s {_span(late)}"
        )


def _span(times: list[float]) -> str:
    return f"{len(times)} from {min(times):.1f} to {max(times):.1f} s" if times else "none"
