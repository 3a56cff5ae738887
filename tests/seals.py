"""Seals for tests: with fixed keys, or with the key of a database."""

from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from infra.database import sealing_keys
from infra.database.sealing_keys import SECRET_BYTES, SealingKey
from infra.seals import Keyring, Seal

SECRET = bytes(range(SECRET_BYTES))
OTHER_SECRET = SECRET[::-1]
DAY = timedelta(days=1)


def fixed_seal(environment_id: int = 1) -> Seal:
    """Return the seal of an environment in a service that never accepts the formats before sealing."""
    return Keyring([SealingKey(1, SECRET, None)]).of(environment_id)


def upgraded_seal(environment_id: int = 1, *, remaining: timedelta = DAY) -> Seal:
    """Return the seal of an environment in a service that was upgraded: texts of releases before are in use."""
    until = datetime.now(UTC) + remaining
    return Keyring([SealingKey(1, SECRET, until, plain_cursors_until=until)]).of(environment_id)


def stored_seal(engine: sa.Engine, environment_id: int) -> Seal:
    """Return the seal of an environment with the keys of a database, as the API has it."""
    with engine.connect() as connection:
        return Keyring(sealing_keys.read(connection)).of(environment_id)
