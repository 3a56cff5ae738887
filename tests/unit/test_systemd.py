"""The units of infra/systemd run the processes of compose.yaml, with few rights."""

import os
import shlex
import shutil
import subprocess
from configparser import RawConfigParser
from pathlib import Path

import pytest

from api.server.__main__ import STOP_SECONDS
from infra.settings import ROOT
from tests.compose.test_compose import OWN

FOLDER = ROOT / "infra" / "systemd"
PROGRAMS = "/opt/consumers/current/bin/"
NOW = 1_800_000_000
"""A clock that stands still. The real one can reach the next second before the check reads it."""
PROCESSES = ("api", "worker-live", "worker-bulk", "beat")


def service(name: str) -> dict[str, str]:
    """Return the section of a service; of a repeated option the last value."""
    parser = RawConfigParser(strict=False, delimiters="=")
    parser.optionxform = str  # type: ignore[method-assign,assignment]  # names of options are case-sensitive
    parser.read(FOLDER / f"consumers-{name}.service", "utf-8")
    return dict(parser["Service"])


@pytest.mark.parametrize("name", PROCESSES)
def test_unit_runs_the_command_of_compose(name: str) -> None:
    command, _, _ = OWN[name]["command"].partition(" --loglevel")
    unit = service(name)
    assert shlex.split(unit["ExecStart"].removeprefix(PROGRAMS).replace("%%", "%")) == shlex.split(command)
    assert int(unit["TimeoutStopSec"]) > STOP_SECONDS
    assert unit["Restart"] == "always"


def test_migration_runs_the_command_of_compose_as_the_owner() -> None:
    unit = service("migrate")
    assert unit["ExecStart"].removeprefix(PROGRAMS).split() == OWN["migrate"]["command"]
    assert unit["EnvironmentFile"] == "/etc/consumers/owner.env"


@pytest.mark.parametrize("name", [*PROCESSES, "migrate"])
def test_unit_has_few_rights(name: str) -> None:
    unit = service(name)
    assert unit["User"] == "consumers"
    assert unit["CapabilityBoundingSet"] == ""
    for option in ("NoNewPrivileges", "ProtectHome", "PrivateTmp", "PrivateDevices", "RestrictNamespaces"):
        assert unit[option] == "yes"
    assert unit["ProtectSystem"] == "strict"


@pytest.mark.parametrize(("age", "is_killed"), [(0, False), (9, False), (10, True), (15, True)])
def test_check_ends_a_process_that_hangs(tmp_path: Path, age: int, *, is_killed: bool) -> None:
    (file := tmp_path / "consumers-beat" / "alive").parent.mkdir()
    file.touch()
    os.utime(file, (NOW - age,) * 2)
    for option, result in (("ExecCondition", ""), ("ExecStart", "kill --signal=KILL consumers-beat.service\n")):
        shell, _, script = shlex.split(service("check@")[option])
        script = script.replace("%t", str(tmp_path)).replace("%i", "beat").replace("%%", "%")
        command = [shell, "-c", f"date() {{ echo {NOW}; }}; systemctl() {{ echo $*; }}; {script}"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout == (result if is_killed else "")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    """The programs of the service are replaced, because systemd looks for them."""
    for file in FOLDER.iterdir():
        text = file.read_text("utf-8").replace(f"{PROGRAMS}", "/bin/true ")
        # Instances of the templates, because a template alone cannot be checked.
        (tmp_path / file.name.replace("@", "@beat")).write_text(text, "utf-8")
    units = [str(file) for file in sorted(tmp_path.iterdir())]
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
