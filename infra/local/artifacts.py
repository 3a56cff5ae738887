"""OpenSearch and its ICU plugin: fetched once per user, checked against pinned digests, unpacked once."""

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

from infra.local.errors import LocalError
from infra.local.folder import MEGABYTE, full_disk_told, require_space

OPENSEARCH = "3.8.0"
UNPACKED = 220 * MEGABYTE
SILENCE_SECONDS = 30
"""For how long a download may stand still."""

Advance: TypeAlias = Callable[[int], None]
Progress: TypeAlias = Callable[[str, int], AbstractContextManager[Advance]]


class Artifact(NamedTuple):
    """A file in a Maven repository, with its size in bytes and its SHA-256."""

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
# ICU itself, and what offers it to Java as a source of locales. OpenSearch creates no index at all on a Java without
# the Thai word breaks (as the packaged one is), so ICU provides them; it must then not be in the plugin a second time.
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
DESCRIPTOR = f"""\
description=ICU analysis
version={OPENSEARCH}
opensearch.version={OPENSEARCH}
java.version=21
name=analysis-icu
classname=org.opensearch.plugin.analysis.icu.AnalysisICUPlugin
"""
EVERYTHING = (SERVER, *PLUGIN, *LIBRARIES)
UNPACKING = ".unpacking-"


@contextmanager
def unseen(_name: str, _size: int) -> Iterator[Advance]:
    """Show no progress."""
    yield lambda _bytes: None


def opensearch_home(
    cache: Path | None = None, *, progress: Progress = unseen, repositories: Mapping[str, str] | None = None
) -> Path:
    """Give the folder of the unpacked server with its plugin, fetching what is missing.

    Any number of processes may do so at once: one works, the others wait for it.

    Args:
        cache: where to keep it; by default the user's cache folder.
        progress: called with name and size of each download; gives the function that is told of its bytes.
        repositories: addresses of Maven repositories, instead of the central one.

    Raises:
        LocalError: a download broke off or is not what it should be, or the disk is full.
    """
    cache = cache or platformdirs.user_cache_path("consumers")
    pins = hashlib.sha256("".join([DESCRIPTOR, *(artifact.sha256 for artifact in EVERYTHING)]).encode())
    home = cache / f"opensearch-{OPENSEARCH}-{pins.hexdigest()[:8]}"
    if home.exists():
        return home
    with full_disk_told(cache), _alone(cache):
        if not home.exists():
            require_space(cache, UNPACKED + 2 * sum(artifact.size for artifact in EVERYTHING))
            files = [_fetch(artifact, cache, progress, repositories) for artifact in EVERYTHING]
            _unpack(files, home)
            for file in files:
                file.unlink()
    return home


@contextmanager
def _alone(cache: Path) -> Iterator[None]:
    try:
        cache.mkdir(parents=True, exist_ok=True)
        lock = (cache / "lock").open("a")
    except PermissionError as error:
        raise LocalError(f"cannot write to the cache folder {cache}: set XDG_CACHE_HOME to another") from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for remains in cache.glob(f"{UNPACKING}*"):
            shutil.rmtree(remains)
        yield


def _fetch(artifact: Artifact, cache: Path, progress: Progress, repositories: Mapping[str, str] | None) -> Path:
    file = cache / artifact.filename
    if not file.exists():
        # jgo writes to the final name from the start, so it gets a folder of its own until the end.
        with tempfile.TemporaryDirectory(dir=cache, prefix=UNPACKING) as place:
            _download(artifact, Path(place), progress, repositories).replace(file)
    with file.open("rb") as content:
        found = hashlib.file_digest(content, "sha256").hexdigest()
    if found != artifact.sha256:
        file.unlink()
        raise LocalError(f"{file} was not what it should be (SHA-256 {found}) and is removed: start again")
    return file


def _download(artifact: Artifact, place: Path, progress: Progress, repositories: Mapping[str, str] | None) -> Path:
    context = MavenContext(
        resolver=PythonResolver(progress_callback=progress),
        repo_cache=place,
        remote_repos=dict(repositories) if repositories else None,
        timeout=SILENCE_SECONDS,
    )
    component = context.project(artifact.group, artifact.name).at_version(artifact.version)
    try:
        return Path(component.artifact(packaging=artifact.packaging).resolve())
    except requests.RequestException as error:
        raise LocalError(
            f"the download of {artifact.filename} broke off ({_reason(error)}): check the network, try again"
        ) from error
    except RuntimeError as error:
        raise LocalError(f"{artifact.filename} is not to be had from the Maven repository") from error


def _reason(error: requests.RequestException) -> str:
    return str(error).splitlines()[0][:120] or type(error).__name__


def _unpack(files: list[Path], home: Path) -> None:
    """Unpack beside the final place and move it there whole."""
    with tempfile.TemporaryDirectory(dir=home.parent, prefix=UNPACKING) as place:
        server, *jars = files
        with zipfile.ZipFile(server) as archive:
            for member in archive.infolist():
                path = Path(archive.extract(member, place))
                # zipfile leaves out the permissions, and with them the right to execute.
                if mode := member.external_attr >> 16:
                    path.chmod(mode & 0o777)
        (unpacked,) = Path(place).iterdir()
        extension = unpacked / "plugins" / "analysis-icu"
        extension.mkdir()
        for number, jar in enumerate(jars):
            shutil.copy(jar, extension if number < len(PLUGIN) else unpacked / "lib")
        (extension / "plugin-descriptor.properties").write_text(DESCRIPTOR)
        unpacked.replace(home)
