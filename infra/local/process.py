"""A child process: spawned with its log in a file, ended with its parent, started again on demand."""

import atexit
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mirakuru.base
from mirakuru.exceptions import ProcessFinishedWithError

from infra.local.errors import LocalError

STOP_SECONDS = 20.0
TELLING = re.compile(r"FATAL|PANIC|ERROR|Error|Exception|No space left|not permitted")

# At exit mirakuru kills whatever on this machine carries its mark with our process id *anywhere* in it:
# with a short id that meets the servers of others. Ours need neither the mark nor this.
atexit.unregister(mirakuru.base.cleanup_subprocesses)


class _Executor(mirakuru.SimpleExecutor):
    @property
    def envvars(self) -> dict[str, str]:
        return self._envvars

    @property
    def _popen_kwargs(self) -> dict[str, Any]:
        # A function run between fork and exec may deadlock where the parent has threads.
        return super()._popen_kwargs | {"preexec_fn": None, "start_new_session": True}


class Process(ABC):
    """One program, in a session of its own, so that the terminal's Ctrl-C reaches only its parent."""

    stop_signal = signal.SIGTERM
    death_signal = signal.SIGKILL
    """What the kernel sends when the parent dies, however it dies (Linux)."""
    refuses_root = False
    """Whether the program will not run as root: root then runs it in a user namespace, as nobody."""

    def __init__(self, name: str, log: Path, keep_open: Sequence[int] = ()) -> None:
        """Describe a process.

        Args:
            name: what people call it.
            log: the file that gets all it prints; that of the run before is kept beside it.
            keep_open: file descriptors it inherits.
        """
        self.name = name
        self.log = log
        self._keep_open = tuple(keep_open)
        self._executor: _Executor | None = None
        log.parent.mkdir(parents=True, exist_ok=True)
        if log.exists():
            log.replace(log.with_suffix(".1.log"))

    @abstractmethod
    def command(self) -> list[str]:
        """Give the program and its arguments."""

    def environ(self) -> Mapping[str, str]:
        return os.environ

    def cwd(self) -> Path:
        return self.log.parent

    @property
    def pid(self) -> int:
        assert self._executor
        assert self._executor.process
        return int(self._executor.process.pid)

    def running(self) -> bool:
        return self._executor is not None and self._executor.running()

    def stuck(self) -> str | None:
        """Say what shows that it runs and does nothing, if something does."""
        return None

    def spawn(self) -> None:
        """Start it without waiting until it works.

        To be called in the main thread only: the kernel takes the end of the spawning *thread* for the
        parent's death.
        """
        if self._executor is not None:
            self.kill()
        with self.log.open("ab") as log:
            self._executor = _Executor(
                [*self.prefix(), *self.command()],
                cwd=str(self.cwd()),
                envvars=dict(self.environ()),
                stop_signal=self.stop_signal,
                timeout=STOP_SECONDS,
                sleep=0.02,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                popen_kwargs={"pass_fds": self._keep_open},
            )
            self._executor.start()

    def stop(self) -> None:
        """End it in its own way; after 20 seconds, by force."""
        if self._executor is not None:
            with contextlib.suppress(ProcessFinishedWithError):
                self._executor.stop()
            self._executor = None

    def kill(self) -> None:
        """End it and what it started with SIGKILL, as a crash would."""
        if self._executor is not None and self._executor.process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._executor.process.pid, signal.SIGKILL)
            self._executor.kill()
            self._executor = None

    def ending(self, code: int | None = None) -> str:
        """Say how it ended, with the line of its log that tells most, and where that log is."""
        if code is None:
            assert self._executor
            assert self._executor.process
            code = int(self._executor.process.returncode)
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return f"{how}: {self._telling_line()} (its log: {self.log})"

    def _telling_line(self) -> str:
        with self.log.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - 50_000))
            lines = [line.strip() for line in log.read().decode(errors="replace").splitlines() if line.strip()]
        telling = [line for line in lines if TELLING.search(line)] or lines or ["it printed nothing"]
        return telling[-1][:300]

    def prefix(self) -> list[str]:
        """Give what starts the program: bound to the parent, in a user namespace if need be."""
        if sys.platform != "linux":
            return []
        if not shutil.which("setpriv") or not shutil.which("unshare"):
            raise LocalError("the programs setpriv and unshare are missing: install the package util-linux")
        # The order counts: a change of credentials clears the death signal.
        namespace = ["unshare", "--user", "--map-user=65534", "--map-group=65534"]
        confined = self.refuses_root and os.geteuid() == 0
        return [*(namespace if confined else []), "setpriv", f"--pdeathsig={self.death_signal.name}", "--"]
