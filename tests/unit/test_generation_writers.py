"""The table `generations` is written in two files, so that its state machine can be read in one place."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
WRITERS = {"indexer/rebuild/transitions.py", "infra/operations/rebuild.py"}
MIGRATIONS = ROOT / "infra/database/migrations"
WRITE = re.compile(
    r"\b(insert\s+into|update|delete\s+from|merge\s+into|truncate(\s+table)?|copy)\s+(only\s+)?(public\.)?\"?generations\b",
    re.IGNORECASE,
)


def test_only_two_files_write_generations() -> None:
    sources = [
        file
        for package in ("api", "indexer", "infra")
        for file in (ROOT / package).rglob("*")
        if file.suffix in {".py", ".sql"} and not file.is_relative_to(MIGRATIONS)
    ]
    writers = {str(file.relative_to(ROOT)) for file in sources if WRITE.search(file.read_text())}
    assert writers == WRITERS
