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

import psycopg
import pytest

from infra.local import ports
from infra.settings import ROOT, Settings, load
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


def settings(folder: Path) -> Settings:
    """Of what runs there."""
    environ = {"LOCAL_DIR": str(folder)}
    return load(environ)


def is_as_declared(folder: Path) -> bool:
    """Whether the index that is read is what the code declares."""
    command = [str(Path(sys.executable).with_name("consumers")), "index", "status", "--json"]
    status = json.loads(subprocess.check_output(command, env=os.environ | {"LOCAL_DIR": str(folder)}))
    return all(each["isAsDeclared"] for each in status["generations"] if each["state"] == "live")


def test_printed_commands_work_and_a_second_start_keeps_all_but_an_index_of_older_code(
    tmp_path: Path,
) -> None:
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
        with psycopg.connect(settings(tmp_path).database_url) as connection:
            connection.execute("UPDATE generations SET mapping_digest = 'of older code'")
        first.kill()
    wait_until(lambda: not processes_of(tmp_path), what="the end of all processes")

    with start(tmp_path) as second:
        lines = list(printed(second))
        assert commands[2].partition("Bearer ")[2] in [line.partition("Bearer ")[2] for line in lines]
        assert [
            line
            for line in lines
            if line.startswith("The index differs from the mapping declared by the code: building")
        ]
        wait_until(lambda: is_as_declared(tmp_path), timeout=90, what="the rebuild")
        second.send_signal(signal.SIGINT)
        rest, _ = second.communicate(timeout=60)
    assert (second.returncode, rest.splitlines()[-1:]) == (0, ["Stopped."])
    assert not processes_of(tmp_path)
