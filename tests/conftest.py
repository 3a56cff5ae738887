"""Fixtures for all tests: the real servers."""

import gc
import shutil
import signal
import tempfile
from collections.abc import Iterator

import hypothesis
import pytest

from infra.local.servers import THROWAWAY, LocalServers
from tests.databases import drop_template
from tests.server_folders import server_folder

pytest_plugins = ["tests.service", "tests.parts"]

# A shell starts a background job with SIGINT ignored. The processes started by tests would inherit this, and no test
# could interrupt its processes.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Other tests use the same processors, so the time of an example proves nothing.
hypothesis.settings.register_profile("tests", hypothesis.settings(), deadline=None)
hypothesis.settings.load_profile("tests")

# The collector would visit the objects of imported modules and collected tests again and again: half of the time to
# collect the tests, and a seventh of the time to run them.
gc.disable()
NEW_OBJECTS = 10_000
"""Number of new objects between two collections, instead of 700."""


def pytest_collection_finish() -> None:
    """Exclude all present objects from garbage collection, which begins now."""
    gc.freeze()
    gc.set_threshold(NEW_OBJECTS)
    gc.enable()


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Keep the exit status for `make again`, which repeats the failed tests of a complete run only."""
    if not hasattr(session.config, "workerinput"):
        session.config.cache.set("run/status", int(exitstatus))


@pytest.fixture(scope="session", autouse=True)
def temporary_files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A folder for the temporary files of all processes, because a killed process leaves its files behind."""
    folder = tmp_path_factory.mktemp("t")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(folder))
        patch.setattr(tempfile, "tempdir", str(folder))
        yield
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServers]:
    """PostgreSQL, Valkey and OpenSearch on ports of their own, beside whatever else runs here."""
    with server_folder(tmp_path_factory) as folder, LocalServers(folder, THROWAWAY) as running:
        yield running
        drop_template(running)
