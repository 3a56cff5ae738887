"""A child process with a log file. The process ends with its parent, and can be restarted."""

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
ERROR_LINE = re.compile(r"FATAL|PANIC|ERROR|Error|Exception|No space left|not permitted|\"critical\"")

# At exit mirakuru kills every process on the machine whose mark contains our process id *anywhere*: a short id also
# matches servers of other programs. Our servers need neither the mark nor the clean-up.
atexit.unregister(mirakuru.base.cleanup_subprocesses)


class _Executor(mirakuru.SimpleExecutor):
    @property
    def envvars(self) -> dict[str, str]:
        return self._envvars

    @property
    def _popen_kwargs(self) -> dict[str, Any]:
        # A function between fork and exec may deadlock if the parent has threads.
        return super()._popen_kwargs | {"preexec_fn": None, "start_new_session": True}


class Process(ABC):
    """A program in a separate session, so that Ctrl-C in the terminal reaches only the parent."""

    stop_signal = signal.SIGTERM
    death_signal = signal.SIGKILL
    """Signal that the kernel sends when the parent dies (Linux)."""
    refuses_root = False
    """Whether the program refuses to run as root: root then runs it in a user namespace, as user 65534."""

    def __init__(self, name: str, log: Path, keep_open: Sequence[int] = ()) -> None:
        """Describe a process.

        Args:
            name: the name in messages.
            log: file for all output; the log of the previous run is kept in the same folder.
            keep_open: file descriptors that the process inherits.
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
        """Return the program and its arguments."""

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
        """Return the reason if the process runs without making progress, else None."""
        return None

    def spawn(self) -> None:
        """Start the process without waiting until it is ready.

        Call in the main thread only: the kernel takes the end of the spawning *thread* for the parent's death.
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
        """Stop the process by the stop signal; after 20 seconds, kill the process."""
        if self._executor is not None:
            with contextlib.suppress(ProcessFinishedWithError):
                self._executor.stop()
            self._executor = None

    def kill(self) -> None:
        """Kill the process group with SIGKILL, as in a crash."""
        if self._executor is not None and self._executor.process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._executor.process.pid, signal.SIGKILL)
            self._executor.kill()
            self._executor = None

    def ending(self, code: int | None = None) -> str:
        """Describe how the process ended: exit code or signal, the last error line of the log, the path of the log."""
        if code is None:
            assert self._executor
            assert self._executor.process
            code = int(self._executor.process.returncode)
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return f"{how}: {self._last_error_line()} (its log: {self.log})"

    def _last_error_line(self) -> str:
        with self.log.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - 50_000))
            lines = [line.strip() for line in log.read().decode(errors="replace").splitlines() if line.strip()]
        errors = [line for line in lines if ERROR_LINE.search(line)] or lines or ["no output"]
        return errors[-1][:300]

    def prefix(self) -> list[str]:
        """Return the command prefix: end with the parent, and run in a user namespace where needed."""
        if sys.platform != "linux":
            return []
        if not shutil.which("setpriv") or not shutil.which("unshare"):
            raise LocalError("the programs setpriv and unshare are missing: install the package util-linux")
        # The order matters: a change of credentials clears the death signal.
        namespace = ["unshare", "--user", "--map-user=65534", "--map-group=65534"]
        confined = self.refuses_root and os.geteuid() == 0
        return [*(namespace if confined else []), "setpriv", f"--pdeathsig={self.death_signal.name}", "--"]
