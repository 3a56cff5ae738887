"""`make up`: start everything on this machine, and restart a process that ends or hangs.

1. Start PostgreSQL, Valkey and OpenSearch (`servers.py`).
2. Migrate the database.
3. Start API, workers and beat (`services.py`), while OpenSearch starts. They work without OpenSearch until it is ready.
4. Create the first index.
5. Load the sample data (`sample/`).
6. Restart every process that ends or makes no progress, until Ctrl-C (`watch.py`).
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rich.console import Console

from infra.database import migrate
from infra.database.engine import open_engine
from infra.doctor.catalog import fault_lines
from infra.local import ports, sample
from infra.local.display import Display, welcome
from infra.local.errors import LocalError
from infra.local.folder import disk_full_errors, held, require_space
from infra.local.process import Process
from infra.local.servers import LocalServers
from infra.local.services import services, wait_until_ready, wait_until_searchable
from infra.local.signals import interrupting
from infra.local.watch import keep_running
from infra.operations import first_generation, rebuild
from infra.settings import Settings, load, local_folder

PLACEHOLDERS = {
    "DATABASE_URL": "postgresql://",
    "REDIS_URL": "redis://",
    "OPENSEARCH_URL": "http://",
}


def up() -> None:
    """Start everything on this machine, with sample data, until Ctrl-C.

    Raises:
        LocalError: the service cannot start; the message names the fault and the remedy.
        SettingsError: a variable in the environment is wrong.
    """
    display = Display(Console())
    settings = load(PLACEHOLDERS | {name: value for name, value in os.environ.items() if value})
    folder = local_folder()
    # Data and logs hold personal data, and the folder may be one that other users can read.
    os.umask(0o077)
    with interrupting():
        try:
            with (
                held(folder, f"http://{settings.host}:{settings.port}") as lock,
                disk_full_errors(folder),
                _reserved_ports(settings),
            ):
                require_space(folder)
                _run(folder, lock, display)
        except KeyboardInterrupt:
            display.line("Stopped.")


@contextmanager
def _reserved_ports(settings: Settings) -> Iterator[None]:
    """Reserve the API's ports until the end, so that a second `make up` on them refuses before it starts anything.

    Raises:
        LocalError: a port is in use or reserved.
    """
    addresses = {
        "PORT": (settings.port, settings.host),
        "METRICS_PORT": (settings.operations_port, settings.metrics_host),
    }
    with ExitStack() as stack:
        for name, (port, host) in addresses.items():
            if not stack.enter_context(ports.reserved(port, host)):
                raise LocalError(f"port {port} is in use: choose another, such as `{name}={port + 1} make up`")
        yield


def _run(folder: Path, lock: int, display: Display) -> None:
    with LocalServers(
        folder,
        keep_open=[lock],
        progress=display.download,
        on_ready=lambda server: display.line(f"{server.name} is ready"),
        starting=lambda: display.step("Starting the servers …"),
        waits_for_opensearch=False,
    ) as servers:
        settings = load(_with_addresses(servers.addresses))
        with display.step("Bringing the database up to date …"):
            migrate.upgrade(settings.session_url, report=display.line)
        own = services(folder, settings, [lock])
        with _started(own):
            with display.step("Starting the API and the workers …"):
                servers.wait_for_opensearch()
                as_declared = first_generation.ensure(settings)
                wait_until_ready(own, settings)
            with display.step("Loading the sample data …"):
                key = sample.ensure_demo(settings, folder)
                wait_until_searchable(settings)
            for fault in fault_lines(settings):
                display.line(fault)
            if not as_declared:
                display.line(_rebuild(settings))
            welcome(settings, key, display.line)
            with _started(servers.archiving()):
                keep_running([*servers.running.values(), *own], display.line)


def _rebuild(settings: Settings) -> str:
    """Start a rebuild to the mapping declared by the code; in production an operator starts it."""
    engine = open_engine(settings)
    try:
        with engine.begin() as connection:
            name = rebuild.start(connection, settings).index_name
    except rebuild.RebuildError as error:
        return f"The index differs from the mapping declared by the code; {error}"
    finally:
        engine.dispose()
    return f"The index differs from the mapping declared by the code: building {name} (see `consumers index status`)"


def _with_addresses(addresses: Mapping[str, str]) -> dict[str, str]:
    return os.environ | {name.upper(): address for name, address in addresses.items()}


@contextmanager
def _started(processes: Sequence[Process]) -> Iterator[None]:
    """Start the processes; at the end stop them in reverse order, so that the API stops before the workers."""
    try:
        for process in processes:
            process.spawn()
        yield
    finally:
        for process in reversed(processes):
            process.stop()
