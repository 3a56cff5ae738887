"""Compile the plugin that protects the local OpenSearch by a password.

OpenSearch alone has no access control, and its security plugin is not published for this version.
"""

import os
import subprocess
import tempfile
import zipfile
from pathlib import Path

from infra.local import java
from infra.local.errors import LocalError

SOURCE = Path(__file__).with_name("PasswordPlugin.java")


def build(compiler: Path, home: Path, descriptor: str) -> None:
    """Compile the plugin and add it to an unpacked OpenSearch, in a second or two.

    Args:
        compiler: the Eclipse compiler for Java, because a Java runtime has no compiler.
        home: the folder of OpenSearch.
        descriptor: content of plugin-descriptor.properties.

    Raises:
        LocalError: there is no Java, or the compiler failed.
    """
    folder = home / "plugins" / "password"
    folder.mkdir()
    with tempfile.TemporaryDirectory() as classes, zipfile.ZipFile(folder / "password.jar", "w") as archive:
        _compile(compiler, home / "lib", Path(classes))
        for path in Path(classes).rglob("*.class"):
            archive.write(path, path.relative_to(classes))
    (folder / "plugin-descriptor.properties").write_text(descriptor)


def _compile(compiler: Path, libraries: Path, classes: Path) -> None:
    class_path = os.pathsep.join(map(str, libraries.glob("*.jar")))
    command = [str(java.find().home / "bin" / "java"), "-jar", str(compiler)]
    options = ["-source", "21", "-target", "21", "-nowarn", "-cp", class_path, "-d", str(classes), str(SOURCE)]
    done = subprocess.run([*command, *options], check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        raise LocalError(f"OpenSearch's plugin cannot be compiled: {done.stderr.strip()[-300:]!r}")
