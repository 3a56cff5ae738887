"""Find processes of this machine (Linux)."""

from contextlib import suppress
from pathlib import Path


def processes_of(path: Path) -> list[int]:
    """Return the processes with a path in their arguments or open files."""
    return [int(process.name) for process in Path("/proc").glob("[0-9]*") if _uses(process, path)]


def _uses(process: Path, path: Path) -> bool:
    with suppress(OSError):
        if str(path).encode() in (process / "cmdline").read_bytes():
            return True
        return any(link.readlink().is_relative_to(path) for link in (process / "fd").iterdir())
    return False
