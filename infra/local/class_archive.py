"""An archive of OpenSearch's classes (Java's class data sharing), with which it starts in two thirds of the time.

The first OpenSearch of `make up` records which classes it loads. The archive is made of them beside the running
service, and all later starts use it. Java checks that an archive fits its version and options, and else starts without
it.
"""

import contextlib
import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from infra.local.java import Java
from infra.local.process import Process

# `$0` is the new archive, `$1` its final path, `$2` the niceness, and the others are the command. The session gets the
# niceness as well: that of a process counts only among the processes of a session.
MAKE = """
{ echo "$2" >/proc/self/autogroup; } 2>/dev/null
file=$1
shift 2
"$@" && mv "$0" "$file"
"""


class ClassArchive:
    """The archive for an unpacked OpenSearch and a Java runtime, in the folder of OpenSearch."""

    def __init__(self, home: Path, java: Java, recorded: Path) -> None:
        """Describe an archive.

        Args:
            home: folder of the unpacked OpenSearch.
            java: the runtime.
            recorded: file for the names of the loaded classes.
        """
        # Java refuses an archive after a copy of the jars, which changes their times.
        jars = sorted((jar.name, jar.stat().st_size, jar.stat().st_mtime_ns) for jar in (home / "lib").glob("*.jar"))
        made_of = (java.home / "release").read_bytes() + repr(jars).encode()
        self.file = home / f"classes-{_digest(made_of)}.jsa"
        self.recorded = recorded

    @property
    def is_wanted(self) -> bool:
        """Whether the archive is missing, and can be written."""
        return not self.file.exists() and os.access(self.file.parent, os.W_OK)

    def options(self, *, record: bool) -> list[str]:
        """Return Java's options: to use the archive, or to record the loaded classes for it."""
        if self.file.exists():
            return [f"-XX:SharedArchiveFile={self.file}"]
        return [f"-XX:DumpLoadedClassList={self.recorded}"] if record and self.is_wanted else []


class Archiving(Process):
    """Makes the archive from the recorded classes."""

    niceness = 19
    """Of the process and its session: it works while nothing else needs the processors."""

    def __init__(
        self, archive: ClassArchive, java: Sequence[str], environ: Mapping[str, str], log_folder: Path
    ) -> None:
        """Describe the process.

        Args:
            archive: to make. OpenSearch may still record classes.
            java: command of OpenSearch without its main class.
            environ: of OpenSearch.
            log_folder: for the output.
        """
        super().__init__("class archive", log_folder / "class-archive.log")
        self._archive, self._java, self._environ = archive, java, environ
        self._classes = archive.recorded.with_suffix(".complete")

    def spawn(self) -> None:
        # An error, such as a full disk, must not end the service. The next start tries again.
        with contextlib.suppress(OSError):
            # The last line may not be complete.
            lines, end, _ = self._archive.recorded.read_bytes().rpartition(b"\n")
            self._classes.write_bytes(lines + end)
            super().spawn()

    def environ(self) -> Mapping[str, str]:
        return self._environ

    def command(self) -> list[str]:
        file = self._archive.file
        # Two services on one cache folder may both make it.
        new = file.with_suffix(f".{_digest(bytes(self._archive.recorded))}")
        options = ["-Xshare:dump", f"-XX:SharedClassListFile={self._classes}", f"-XX:SharedArchiveFile={new}"]
        java = [*self.prefix(), "nice", "-n", str(self.niceness), *self._java]
        return ["sh", "-c", MAKE, str(new), str(file), str(self.niceness), *java, *options]


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:8]
