"""The sample data of `make up` in an environment, and an export of it, made and downloaded as the page says."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from infra.exports import attributes
from infra.local.sample import loading
from tests.analysts import pages
from tests.service import Account, Service, new_account
from tests.waiting import wait_until

ATTRIBUTES = ("metadata.country:text", "metadata.loyalty.tier:text", "metadata.loyalty.points:number")


@pytest.fixture(scope="session")
def shop(service: Service) -> Iterator[Account]:
    """An account whose live environment has the sample data, with attributes."""
    with new_account(service, currency="USD") as account:
        with account.database.engine.begin() as connection:
            loading.load(connection, account.live_environment)
            attributes.declare(connection, account.name, attributes.parse(ATTRIBUTES))
            # The joins of the questions take a minute by a plan for empty tables.
            connection.execute(sa.text("ANALYZE consumers, orders"))
        wait_until(lambda: not account.database.waiting(account.live_environment), timeout=120, what="the index")
        yield account


@pytest.fixture(scope="session")
def key(shop: Account) -> str:
    return shop.live.headers["Authorization"].removeprefix("Bearer ")


@pytest.fixture(scope="session")
def desk(service: Service, key: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the commands of the page have made the folder `export`."""
    folder = tmp_path_factory.mktemp("analyst")
    (folder / ".local").mkdir()
    (folder / ".local/demo.key").write_text(key)
    shell = "\n".join(pages.blocks("analysts.md", "sh")[:3]).replace("http://127.0.0.1:8000", service.url)
    command = ["bash", "-euo", "pipefail", "-c", shell]
    done = subprocess.run(command, cwd=folder, env=dict(os.environ), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert '"state":"done"' in done.stdout
    return folder


@pytest.fixture(scope="session")
def export(desk: Path) -> Path:
    return desk / "export"
