"""The owner of an index: each index carries the id of its installation in the mapping's `_meta`.

Two databases with the same index prefix on one cluster would take each other's aliases, and serve each other's people.
So an index that carries the id of another installation is refused: by `consumers migrate`, by each command, at the
start of each process, by reads and by drains.
"""

import time
from collections.abc import Mapping
from functools import cache

import msgspec
import sqlalchemy as sa
import structlog
from opensearchpy import OpenSearch
from opensearchpy.exceptions import OpenSearchException
from sqlalchemy.exc import DBAPIError

from infra.database import installation
from infra.database.engine import open_engine
from infra.database.installation import InstallationMissing
from infra.index import indices, naming
from infra.index.client import open_client
from infra.index.indices import Index, SearchError
from infra.settings import Settings

log = structlog.get_logger()

START_SECONDS = 2
"""How long a start waits for OpenSearch. Without an answer, the later checks find a foreign index."""
CHECK_SECONDS = 1.0
"""Time between two checks of a running process."""
OWNER_ONLY = {"filter_path": f"*.mappings._meta.{indices.INSTALLATION}"}

GENERATIONS = sa.text("SELECT index_name, index_uuid, state FROM generations WHERE state <> 'dropped'")


class ForeignIndexError(SearchError):
    """An index belongs to another installation. The message names the index, and the remedies."""

    def __init__(self, name: str, owner: str | None, installation_id: str) -> None:
        whose = f"belongs to another installation ({owner})" if owner else "is not in this database"
        this = "was copied from its database" if owner == installation_id else f"is of installation {installation_id}"
        super().__init__(
            f"the index {name} in OpenSearch {whose}, and this database {this}: set INDEX_PREFIX to a prefix that no "
            "other installation uses, or delete the index if its database no longer exists"
        )


class _Meta(msgspec.Struct):
    installation: str | None = None


class _Mappings(msgspec.Struct):
    meta: _Meta = msgspec.field(name="_meta")


class _Owned(msgspec.Struct):
    mappings: _Mappings


_decode_owners = msgspec.json.Decoder(dict[str, _Owned]).decode


def owners(response: str | bytes) -> dict[str, str | None]:
    """Return the owner of each index of a mapping's response with `OWNER_ONLY`, as JSON text."""
    return {name: index.mappings.meta.installation for name, index in _decode_owners(response).items()}


def require_own(connection: sa.Connection, existing: Mapping[str, Index], prefix: str) -> None:
    """Check that this installation may use the index prefix.

    A foreign index is allowed beside the installation's own live index, as long as reads do not use the foreign index.

    Raises:
        ForeignIndexError: the live index or the index of the read alias is foreign; or there is a foreign index, and
            this installation has none.
    """
    installation_id = installation.read(connection)
    rows = connection.execute(GENERATIONS).all()
    own = {row.index_name: row.index_uuid for row in rows}
    live = next((row.index_name for row in rows if row.state == "live"), "")
    has_live = live.startswith(f"{prefix}-")
    is_copy = not has_live and installation.is_copy(connection)
    for name, index in existing.items():
        is_read = naming.read_alias(prefix) in index.aliases
        if index.installation == installation_id and not is_copy:
            continue
        if index.installation is None:
            # Made by a release that recorded no owner. The row of this database has the UUID, if the index is its own.
            is_foreign = is_read and not has_live and own.get(name, "") not in {index.uuid, None}
        else:
            is_foreign = is_read or name == live or not has_live
        if is_foreign:
            raise ForeignIndexError(name, index.installation, installation_id)


def claim(client: OpenSearch, name: str, index: Index, installation_id: str) -> None:
    """Record the owner of an index that was made before owners were recorded.

    Raises:
        OpenSearchException: OpenSearch does not answer.
    """
    client.indices.put_mapping(index=name, body={"_meta": {**index.meta, indices.INSTALLATION: installation_id}})
    log.info("index_claimed", index=name, installation=installation_id)


@cache
def refuse_foreign_index(settings: Settings) -> None:
    """Check, once in a process, that this installation may use the index prefix, if both servers answer in time.

    Raises:
        ForeignIndexError: see `require_own`.
    """
    engine, client = open_engine(settings), open_client(settings, seconds=START_SECONDS)
    try:
        existing = indices.existing(client, settings.index_prefix)
        with engine.connect() as connection:
            require_own(connection, existing, settings.index_prefix)
    except (OpenSearchException, DBAPIError, InstallationMissing):
        pass  # The output of a command is for its result, and a later check finds a foreign index.
    finally:
        engine.dispose()
        client.close()


class OwnerCheck:
    """Checks the owner of an index that a process writes, about once a second."""

    def __init__(self) -> None:
        self._valid_until: dict[str, float] = {}

    def require_own(self, connection: sa.Connection, client: OpenSearch, name: str) -> None:
        """Check the owner of an index.

        Args:
            connection: of the installation.
            client: with answers as JSON text.
            name: of the index.

        Raises:
            ForeignIndexError: the index belongs to another installation.
            OpenSearchException: the index does not exist, or OpenSearch does not answer.
        """
        if time.monotonic() < self._valid_until.get(name, 0.0):
            return
        response: str = client.indices.get_mapping(index=name, params=OWNER_ONLY)
        installation_id = installation.read(connection)
        for index, owner in owners(response).items():
            if owner not in {None, installation_id}:
                raise ForeignIndexError(index, owner, installation_id)
        self._valid_until = {name: time.monotonic() + CHECK_SECONDS}
