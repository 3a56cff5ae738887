"""HAProxy with the configuration of docs/deploying.md, before two APIs."""

import re
import shutil
import ssl
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import httpx
import trustme

from infra.local import ports
from infra.settings import ROOT
from tests.waiting import wait_until

PROGRAM = shutil.which("haproxy") or shutil.which("haproxy", path=f"{Path(sys.executable).parent}:/usr/sbin")
DOCUMENTED = re.compile(r"```haproxy\n(.*?)```", re.DOTALL)
APIS = ("10.0.0.1:8000", "10.0.0.2:8000")


class Haproxy:
    """HAProxy on a free port, until the end of the context."""

    def __init__(self, folder: Path, api_ports: Sequence[int]) -> None:
        """Write the documented configuration with the ports of this machine, and a certificate."""
        authority = trustme.CA()
        self._folder, self._file = folder, folder / "haproxy.cfg"
        certificate = folder / "api.pem"
        authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(certificate)
        self.tls = ssl.create_default_context(cadata=authority.cert_pem.bytes().decode())
        address = f"127.0.0.1:{ports.pick()}"
        self.url = f"https://{address}"
        text = _documented()
        replaced = {"bind :443": f"bind {address}", "/etc/haproxy/api.pem": str(certificate)}
        for old, new in (
            replaced | {api: f"127.0.0.1:{port}" for api, port in zip(APIS, api_ports, strict=True)}
        ).items():
            assert old in text, f"docs/deploying.md has no {old}"
            text = text.replace(old, new)
        self._file.write_text(text)

    def __enter__(self) -> Self:
        assert PROGRAM
        checked = subprocess.run([PROGRAM, "-c", "-f", self._file], capture_output=True, text=True, check=False)
        assert checked.returncode == 0, checked.stdout + checked.stderr
        with (self._folder / "haproxy.log").open("wb") as log:
            self._process = subprocess.Popen([PROGRAM, "-db", "-f", self._file], stdout=log, stderr=log)
        wait_until(self._answers, what="HAProxy")
        return self

    def is_logged(self, text: str) -> bool:
        """Return whether a line about the state of an API has the text."""
        return text in (self._folder / "haproxy.log").read_text()

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health/ready", verify=self.tls).is_success
        except httpx.TransportError:
            return False

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()


def _documented() -> str:
    [block] = DOCUMENTED.findall((ROOT / "docs" / "deploying.md").read_text("utf-8"))
    return str(block)
