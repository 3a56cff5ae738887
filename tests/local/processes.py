"""Looking for processes on this machine (Linux)."""

from contextlib import suppress
from pathlib import Path


def processes_of(place: Path) -> list[int]:
    """Find the processes that name the file or folder in their arguments, or have it open."""
    return [int(process.name) for process in Path("/proc").glob("[0-9]*") if _belongs(process, place)]


def _belongs(process: Path, place: Path) -> bool:
    with suppress(OSError):
        if str(place).encode() in (process / "cmdline").read_bytes():
            return True
        return any(link.readlink().is_relative_to(place) for link in (process / "fd").iterdir())
    return False
