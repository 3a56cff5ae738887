"""The store for the files of exports: a folder, or an S3-compatible store (EXPORTS_URL).

API and workers use the same store, and may run on different machines. A file has the path
`INSTALLATION/EXPORT/ATTEMPT/NAME`. Each attempt writes into a separate folder, and all files are listed in the row of
the export at once, after the last file. So no half file is ever listed.
"""

import shutil
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from obstore.exceptions import BaseError
from obstore.store import ObjectStore, from_url

from infra.database import installation
from infra.errors import ExplainedError
from infra.settings import Settings

STORE_ERRORS = (BaseError, OSError)
"""Errors of the store: it does not answer, refuses access, lacks space, or has no such file."""
PART_BYTES = 1024 * 1024
"""Bytes of a download read at a time."""
FOLDER_MODE = 0o700
UPLOADS = 4
"""Parts of a file uploaded at the same time: 5 MiB of memory each."""
CONNECT_SECONDS, SILENCE_SECONDS, RETRY_SECONDS = 5, 15, 10
ENDLESS = timedelta(days=1)
"""A download lasts as long as the client reads, so only the silence of the store is limited."""
NOT_CONFIGURED = "exports need a store for their files: set EXPORTS_URL, the same for the API and the workers"


class StoreMissingError(ExplainedError):
    """EXPORTS_URL is not set. The message is a line for the operator."""

    def __init__(self) -> None:
        super().__init__(NOT_CONFIGURED)


class ExportStore:
    """The files of all exports of an installation."""

    def __init__(self, store: ObjectStore, installation_id: str, folder: Path | None) -> None:
        """Take the store, the id of the installation, and the folder if the store is a folder."""
        self._store, self._installation_id, self.folder = store, installation_id, folder

    def put(self, export_id: str, claim: int, file: Path) -> None:
        """Store a file under its name. A file is visible only as a whole.

        Raises:
            BaseError, OSError: see `STORE_ERRORS`.
        """
        self._store.put(self._path(export_id, claim, file.name), file, max_concurrency=UPLOADS)

    def get(self, export_id: str, claim: int, name: str, target: Path) -> None:
        """Copy a file of an export to a path.

        Raises:
            BaseError, OSError: see `STORE_ERRORS`.
        """
        with target.open("wb") as file:
            for part in self._store.get(self._path(export_id, claim, name)).stream(PART_BYTES):
                file.write(part)

    async def open(self, export_id: str, claim: int, name: str, start: int, end: int) -> AsyncIterator[bytes]:
        """Return the parts of a range of a file, `end` excluded.

        Raises:
            BaseError, OSError: see `STORE_ERRORS`; FileNotFoundError if the file has been deleted.
        """
        path = self._path(export_id, claim, name)
        result = await self._store.get_async(path, options={"range": (start, end)})
        return _parts(result.stream(PART_BYTES))

    async def require(self, export_id: str, claim: int, name: str) -> None:
        """Check that the store has a file.

        Raises:
            BaseError, OSError: see `STORE_ERRORS`; FileNotFoundError if the file has been deleted.
        """
        await self._store.head_async(self._path(export_id, claim, name))

    def exports(self) -> set[str]:
        """Return the ids of the exports with files, complete or not.

        Raises:
            BaseError, OSError: see `STORE_ERRORS`.
        """
        if self.folder:
            # A killed upload leaves a temporary file, which the library does not list.
            return {path.name for path in (self.folder / self._installation_id).glob("*")}
        pages = self._store.list(self._installation_id)
        return {item["path"].split("/")[1] for page in pages for item in page}

    def delete(self, export_id: str, *, but_claim: int | None = None) -> None:
        """Delete the files of an export, except those of an attempt.

        Raises:
            BaseError, OSError: see `STORE_ERRORS`.
        """
        if self.folder:
            for attempt in (self.folder / self._installation_id / export_id).glob("*"):
                if attempt.name != str(but_claim):
                    shutil.rmtree(attempt)
            if but_claim is None:
                (self.folder / self._installation_id / export_id).rmdir()
            return
        kept = f"{self._installation_id}/{export_id}/{but_claim}/"
        for page in self._store.list(f"{self._installation_id}/{export_id}"):
            if paths := [item["path"] for item in page if not item["path"].startswith(kept)]:
                self._store.delete(paths)

    def _path(self, export_id: str, claim: int, name: str) -> str:
        return f"{self._installation_id}/{export_id}/{claim}/{name}"


async def _parts(stream: AsyncIterator[object]) -> AsyncIterator[bytes]:
    async for part in stream:
        yield bytes(part)  # type: ignore[call-overload]  # a buffer


def open_store(settings: Settings) -> ExportStore:
    """Open the store. A folder is created unless it exists.

    Raises:
        StoreMissingError: EXPORTS_URL is not set.
        InstallationMissing, DBAPIError: see `installation.id_of`.
        BaseError, OSError: see `STORE_ERRORS`.
    """
    if settings.exports_url is None:
        raise StoreMissingError
    installation_id = installation.id_of(settings)
    if not settings.exports_url.startswith("file:"):
        return ExportStore(_remote(settings.exports_url), installation_id, None)
    folder = Path(url2pathname(urlsplit(settings.exports_url).path))
    folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
    return ExportStore(from_url(settings.exports_url, automatic_cleanup=True), installation_id, folder)


def _remote(url: str) -> ObjectStore:
    """Open a store that is not a folder. Every request is repeated for a while if the store fails."""
    return from_url(
        url,
        client_options={
            "allow_http": True,  # if the operator's address of the store says so
            "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
            "read_timeout": timedelta(seconds=SILENCE_SECONDS),
            "timeout": ENDLESS,
        },
        retry_config={"max_retries": 3, "retry_timeout": timedelta(seconds=RETRY_SECONDS)},
    )
