"""The files of `shared/cases/files`: small made-up files of kinds that users reported."""

import shutil
from pathlib import Path

import pytest

from infra.imports import kinds
from infra.imports.run import Counts
from infra.settings import ROOT
from tests.imports.import_environment import ImportEnvironment

FOLDER = ROOT.parent / "shared" / "cases" / "files"
BASE = "externalId,email\nm1,m1@example.org\nm2,m2@example.org\no1,o1@example.org\n,m1-x@example.org\n"

pytestmark = [
    pytest.mark.shared_data,
    pytest.mark.skipif(not FOLDER.is_dir(), reason="the folder shared/cases/files is not beside the project"),
]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Copies, because the errors file is written beside the imported file."""
    return Path(shutil.copytree(FOLDER, tmp_path / "files"))


def test_shared_files_of_consumers(shop: ImportEnvironment, files: Path) -> None:
    def imported(name: str) -> Counts:
        return shop.import_file(kinds.CONSUMERS, files / f"{name}.csv", processes=0)

    shop.consumers(BASE)
    shop.connection.execute(
        "INSERT INTO consumers (environment_id, email, metadata) VALUES (%s, 'flip@example.org', %s)",
        (shop.environment.id, '{"points": 100}'),
    )
    assert imported("flip") == Counts(read=1, unchanged=1)
    assert imported("sciids").rejected == 2
    assert imported("extws") == Counts(read=2, inserted=2)
    assert imported("extws2") == Counts(read=2, unchanged=2)
    rows = {"blank": 1, "trailrow": 2, "trailcols": 1, "short": 2, "spaces": 2, "semi": 1, "sep": 1}
    assert {name: imported(name) for name in rows} == {name: Counts(read=n, inserted=n) for name, n in rows.items()}
    assert imported("swap") == Counts(read=2, updated=2)
    shop.consumers("externalId,email\nm1,m1@example.org\nm2,m2@example.org\n")
    assert imported("shift") == Counts(read=2, updated=2)
    unclosed = imported("uq")
    assert (unclosed.inserted, unclosed.rejected, unclosed.unread_lines) == (50, 0, 201)
    assert str(unclosed.unread).startswith("Line 52: a quote opens and never closes")


def test_shared_files_of_orders(shop: ImportEnvironment, files: Path) -> None:
    shop.consumers(BASE)
    counts = shop.import_file(kinds.ORDERS, files / "ro6.csv", processes=0, system="shopify")
    assert (counts.read, counts.inserted, counts.continued, counts.rejected) == (1, 1, 1, 0)
    assert shop.import_file(kinds.ORDERS, files / "dates.csv", processes=0).rejected == 13
    taken = ["d0", "d2", "d3", "d4", "d5", "d6", "d10", "d20"]
    assert [name for (name,) in shop.stored("external_id", "orders")] == ["#1001", *taken]
