"""The limit of what an environment stores: a merchant cannot fill the disk that all merchants share.

The indexer measures the environments every minute (`indexer/stored_size.py`), so an environment may exceed its limit by
the writes of about a minute.
"""

from http import HTTPStatus

from api.auth import Caller
from api.error_codes import ErrorCode
from api.errors import Problem


def require_storage(caller: Caller, default_limit: int) -> None:
    """Refuse a write that stores data if the environment has reached its limit. Deletions are never refused.

    Args:
        caller: the environment.
        default_limit: the limit of the service in MiB; 0 is unlimited.

    Raises:
        Problem: 403.
    """
    limit = default_limit if caller.limit_stored_mib is None else caller.limit_stored_mib
    if limit and caller.stored_mib >= limit:
        raise Problem(
            HTTPStatus.FORBIDDEN,
            "Storage limit reached",
            code=ErrorCode.STORAGE_LIMIT_REACHED,
            message=f"This environment stores {caller.stored_mib:,} MiB, and at most {limit:,} MiB are allowed: delete "
            "consumers, orders or audiences, and write again after a minute",
        )
