"""`consumers up` as a whole: what it prints works, and nothing outlives it."""

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from infra.local import ports
from infra.settings import ROOT
from tests.local.processes import processes_of
from tests.waiting import wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes as Linux shows them")


@contextmanager
def start(folder: Path) -> Iterator[subprocess.Popen[str]]:
    command = [str(Path(sys.executable).with_name("consumers")), "up"]
    environ = os.environ | {"LOCAL_DIR": str(folder), "PORT": str(ports.pick())}
    with subprocess.Popen(command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, text=True) as running:
        try:
            yield running
        finally:
            running.kill()


def printed(running: subprocess.Popen[str]) -> Iterator[str]:
    assert running.stdout
    for line in running.stdout:
        yield line.strip()
        if line.startswith("Ctrl-C"):
            return


def test_printed_commands_work_and_nothing_outlives_it(tmp_path: Path) -> None:
    with start(tmp_path) as first:
        commands = [line for line in printed(first) if line.startswith("curl ")]
        best, posted, _ = (
            json.loads(subprocess.check_output(["curl", "-s", *shlex.split(line)[1:]])) for line in commands
        )
        values = [consumer["totalOrderValue"] for consumer in best["data"]]
        assert len(values) == 3
        assert values == sorted(values, reverse=True)
        wait_until(
            lambda: posted["id"] in subprocess.check_output(shlex.split(commands[2])).decode(), what="the posted one"
        )
        first.kill()
    wait_until(lambda: not processes_of(tmp_path), what="the end of all processes")

    with start(tmp_path) as second:
        assert commands[2].partition("Bearer ")[2] in [line.partition("Bearer ")[2] for line in printed(second)]
        second.send_signal(signal.SIGINT)
        rest, _ = second.communicate(timeout=60)
    assert (second.returncode, rest.splitlines()[-1:]) == (0, ["Stopped."])
    assert not processes_of(tmp_path)
