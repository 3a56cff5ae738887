"""An S3-compatible server with files in a folder: versitygw, which checks credentials and signatures."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from infra.local import ports
from tests.service import NO_CERTIFICATES
from tests.waiting import wait_until

PROGRAM = "versitygw"
MISSING = f"{PROGRAM} is missing: go install github.com/versity/versitygw/cmd/versitygw@v1.8.0"
BUCKET = "exports"


class S3Server:
    """The server, which a test may stop and start again."""

    def __init__(self, folder: Path) -> None:
        """Take an empty folder for the buckets."""
        self._program = shutil.which(PROGRAM, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        if not self._program:
            pytest.skip(MISSING)
        self._folder, self._port = folder, ports.pick()
        self._process: subprocess.Popen[bytes] | None = None
        (folder / "buckets" / BUCKET).mkdir(parents=True)
        (folder / "attributes").mkdir()

    @property
    def environ(self) -> dict[str, str]:
        """The access for clients."""
        return {
            "EXPORTS_URL": f"s3://{BUCKET}/some/prefix",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "eu-west-1",
            "AWS_ENDPOINT": f"http://127.0.0.1:{self._port}",
        }

    def objects(self) -> list[str]:
        """Return the names of all objects in the bucket, without folders."""
        return sorted(path.name for path in (self._folder / "buckets" / BUCKET).rglob("*") if path.is_file())

    @contextmanager
    def running(self) -> Iterator[None]:
        self._start()
        try:
            yield
        finally:
            self._stop()

    @contextmanager
    def away(self) -> Iterator[None]:
        """Stop the running server for the time of the context."""
        self._stop()
        try:
            yield
        finally:
            self._start()

    def _start(self) -> None:
        access = self.environ
        assert self._program
        command = [
            *(self._program, "--port", f"127.0.0.1:{self._port}", "--region", access["AWS_REGION"]),
            *("--access", access["AWS_ACCESS_KEY_ID"], "--secret", access["AWS_SECRET_ACCESS_KEY"], "--quiet"),
            *("posix", "--sidecar", str(self._folder / "attributes"), str(self._folder / "buckets")),
        ]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        wait_until(self._answers, what=PROGRAM)

    def _stop(self) -> None:
        assert self._process
        self._process.kill()
        self._process.wait()

    def _answers(self) -> bool:
        try:
            httpx.get(self.environ["AWS_ENDPOINT"], verify=NO_CERTIFICATES)
        except httpx.TransportError:
            return False
        return True
