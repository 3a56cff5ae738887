"""`consumers up` as a whole: the printed commands work, and every process ends with it."""

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

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@contextmanager
def start(folder: Path) -> Iterator[subprocess.Popen[str]]:
    command = [str(Path(sys.executable).with_name("consumers")), "up"]
    chosen_ports = {"PORT": str(ports.pick()), "METRICS_PORT": str(ports.pick())}
    # Only the fast compiler of Java: OpenSearch starts in half the processor time.
    environ = os.environ | chosen_ports | {"LOCAL_DIR": str(folder), "JDK_JAVA_OPTIONS": "-XX:TieredStopAtLevel=1"}
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
    """Return the settings of the service running in a folder."""
    environ = {"LOCAL_DIR": str(folder)}
    return load(environ)


def readable_by_others(folder: Path) -> list[Path]:
    """Return the files and folders of a folder that the users of the machine may read or open."""
    modes = {path: path.lstat().st_mode for path in folder.iterdir()}
    return [path for path, mode in modes.items() if mode & 0o077]


def is_as_declared(folder: Path) -> bool:
    """Return whether the live index has the mapping declared by the code."""
    command = [str(Path(sys.executable).with_name("consumers")), "index", "status", "--json"]
    status = json.loads(subprocess.check_output(command, env=os.environ | {"LOCAL_DIR": str(folder)}))
    return all(each["isAsDeclared"] for each in status["generations"] if each["state"] == "live")


def test_printed_commands_work_and_a_restart_keeps_the_data(
    tmp_path: Path,
) -> None:
    tmp_path.chmod(0o755)
    with start(tmp_path) as first:
        commands = [line for line in printed(first) if line.startswith("curl ")]
        best, created, found = (
            json.loads(subprocess.check_output(["curl", "-s", *shlex.split(line)[1:]])) for line in commands
        )
        values = [consumer["totalOrderValue"] for consumer in best["data"]]
        assert len(values) == 3
        assert values == sorted(values, reverse=True)
        assert [consumer["id"] for consumer in found["data"]] == [created["id"]]
        with psycopg.connect(settings(tmp_path).database_url) as connection:
            connection.execute("UPDATE generations SET mapping_digest = 'of older code'")
        assert readable_by_others(tmp_path) == []
        first.kill()
    wait_until(lambda: not processes_of(tmp_path), what="all processes to end")

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
        output, _ = second.communicate(timeout=60)
    assert (second.returncode, output.splitlines()[-1:]) == (0, ["Stopped."])
    assert not processes_of(tmp_path)
