"""Download OpenSearch and the ICU plugin once per user, check the pinned digests, and unpack once.

The password plugin is compiled then (`password_plugin.py`).
"""

import fcntl
import hashlib
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple, TypeAlias

import platformdirs
import requests
from jgo.maven import MavenContext, PythonResolver

from infra.local import password_plugin
from infra.local.errors import LocalError
from infra.local.folder import MEGABYTE, disk_full_errors, require_space

OPENSEARCH = "3.8.0"
UNPACKED = 220 * MEGABYTE
DOWNLOAD_TIMEOUT_SECONDS = 30
"""Maximum time without data during a download."""

Advance: TypeAlias = Callable[[int], None]
Progress: TypeAlias = Callable[[str, int], AbstractContextManager[Advance]]


class Artifact(NamedTuple):
    """A file in a Maven repository, with size in bytes and SHA-256."""

    group: str
    name: str
    version: str
    packaging: str
    size: int
    sha256: str

    @property
    def filename(self) -> str:
        return f"{self.name}-{self.version}.{self.packaging}"


SERVER = Artifact(
    "org.opensearch.distribution.integ-test-zip",
    "opensearch",
    OPENSEARCH,
    "zip",
    160_542_029,
    "196c3cf4602c394f2e40e6174ccbf2a924eae37246f08fa6bbb6b75f9fd5ff1f",
)
PLUGIN = (
    Artifact(
        "org.opensearch.plugin",
        "analysis-icu-client",
        OPENSEARCH,
        "jar",
        43_059,
        "85998f434294644c8adbbc59545362eed407b0eddf921ed7a8e6ae8e6fc5e605",
    ),
    Artifact(
        "org.apache.lucene",
        "lucene-analysis-icu",
        "10.5.0",
        "jar",
        84_979,
        "53d7f2e28016022a9bffe6435c716471b902e972551067ca2d761c587892608e",
    ),
)
# ICU, and the locale provider for Java. OpenSearch needs Thai word breaks to create an index. The packaged Java has no
# Thai word breaks, so ICU provides them. ICU must not be in the plugin folder as well.
LIBRARIES = (
    Artifact(
        "com.ibm.icu",
        "icu4j",
        "77.1",
        "jar",
        14_663_227,
        "b3640b9f416a4411fd33c59abbeea8fd57d024c23e1819bf9673220a97499fe3",
    ),
    Artifact(
        "com.ibm.icu",
        "icu4j-localespi",
        "77.1",
        "jar",
        50_797,
        "77d0da4f10c6158174cc3dafbb51356031a09e0fcaaf0432330afb4fb552cac9",
    ),
)
COMPILER = Artifact(
    "org.eclipse.jdt",
    "ecj",
    "3.42.0",
    "jar",
    3_327_035,
    "29f6d3918ee02db4400c103bc25dd90a22491c3a395867d9393070cb96a7dd29",
)
DESCRIPTOR = f"""\
description=%s
version={OPENSEARCH}
opensearch.version={OPENSEARCH}
java.version=21
name=%s
classname=%s
"""
ICU_DESCRIPTOR = DESCRIPTOR % (
    "ICU analysis",
    "analysis-icu",
    "org.opensearch.plugin.analysis.icu.AnalysisICUPlugin",
)
PASSWORD_DESCRIPTOR = DESCRIPTOR % ("Password", "password", "consumers.PasswordPlugin")
EVERYTHING = (SERVER, COMPILER, *PLUGIN, *LIBRARIES)
UNPACKING = ".unpacking-"


@contextmanager
def no_progress(_name: str, _size: int) -> Iterator[Advance]:
    """Show no progress."""
    yield lambda _bytes: None


def opensearch_home(
    cache: Path | None = None, *, progress: Progress = no_progress, repositories: Mapping[str, str] | None = None
) -> Path:
    """Return the folder of the unpacked server with the plugin; download missing files.

    Safe for several processes at once: a single process downloads, the rest wait.

    Args:
        cache: folder for the server; by default the user's cache folder.
        progress: called with name and size of each download; yields a function that receives the number of new bytes.
        repositories: addresses of Maven repositories that replace the central one.

    Raises:
        LocalError: a download failed, a digest is wrong, or the disk is full.
    """
    cache = cache or platformdirs.user_cache_path("consumers")
    written = (ICU_DESCRIPTOR, PASSWORD_DESCRIPTOR, password_plugin.SOURCE.read_text("utf-8"))
    pins = hashlib.sha256("".join([*written, *(artifact.sha256 for artifact in EVERYTHING)]).encode())
    home = cache / f"opensearch-{OPENSEARCH}-{pins.hexdigest()[:8]}"
    if home.exists():
        return home
    with disk_full_errors(cache), _locked(cache):
        if not home.exists():
            require_space(cache, UNPACKED + 2 * sum(artifact.size for artifact in EVERYTHING))
            files = [fetch(artifact, cache, progress, repositories) for artifact in EVERYTHING]
            _unpack(files, home)
            for file in files:
                file.unlink()
    return home


@contextmanager
def _locked(cache: Path) -> Iterator[None]:
    try:
        cache.mkdir(parents=True, exist_ok=True)
        lock = (cache / "lock").open("a")
    except PermissionError as error:
        raise LocalError(f"cannot write to the cache folder {cache}: set XDG_CACHE_HOME to another folder") from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for remains in cache.glob(f"{UNPACKING}*"):
            shutil.rmtree(remains)
        yield


def fetch(
    artifact: Artifact,
    cache: Path,
    progress: Progress = no_progress,
    repositories: Mapping[str, str] | None = None,
) -> Path:
    """Return the file of an artifact in the cache folder; download it if it is missing.

    Raises:
        LocalError: the download failed, or the digest is wrong.
    """
    file = cache / artifact.filename
    if not file.exists():
        # jgo writes to the final file name from the start, so each download has a temporary folder.
        with tempfile.TemporaryDirectory(dir=cache, prefix=UNPACKING) as folder:
            _download(artifact, Path(folder), progress, repositories).replace(file)
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    if digest != artifact.sha256:
        file.unlink()
        raise LocalError(f"{file} had the wrong SHA-256 digest ({digest}) and was removed: start again")
    return file


def _download(artifact: Artifact, folder: Path, progress: Progress, repositories: Mapping[str, str] | None) -> Path:
    context = MavenContext(
        resolver=PythonResolver(progress_callback=progress),
        repo_cache=folder,
        remote_repos=dict(repositories) if repositories else None,
        timeout=DOWNLOAD_TIMEOUT_SECONDS,
    )
    component = context.project(artifact.group, artifact.name).at_version(artifact.version)
    try:
        return Path(component.artifact(packaging=artifact.packaging).resolve())
    except requests.RequestException as error:
        raise LocalError(
            f"the download of {artifact.filename} failed ({_reason(error)}): check the network, then start again"
        ) from error
    except RuntimeError as error:
        raise LocalError(f"the Maven repository does not have {artifact.filename}") from error


def _reason(error: requests.RequestException) -> str:
    return str(error).splitlines()[0][:120] or type(error).__name__


def _unpack(files: list[Path], home: Path) -> None:
    """Unpack into a temporary folder, then rename it to the final path."""
    with tempfile.TemporaryDirectory(dir=home.parent, prefix=UNPACKING) as folder:
        server, compiler, *jars = files
        with zipfile.ZipFile(server) as archive:
            for member in archive.infolist():
                path = Path(archive.extract(member, folder))
                # zipfile does not restore permissions, such as the right to execute.
                if mode := member.external_attr >> 16:
                    path.chmod(mode & 0o777)
        (unpacked,) = Path(folder).iterdir()
        extension = unpacked / "plugins" / "analysis-icu"
        extension.mkdir()
        for number, jar in enumerate(jars):
            shutil.copy(jar, extension if number < len(PLUGIN) else unpacked / "lib")
        (extension / "plugin-descriptor.properties").write_text(ICU_DESCRIPTOR)
        password_plugin.build(compiler, unpacked, PASSWORD_DESCRIPTOR)
        unpacked.replace(home)
