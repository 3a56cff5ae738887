"""How commands and requests of those who run the service are answered: the same JSON."""

import json
from collections.abc import Iterable
from datetime import datetime

import msgspec

from infra.documents import time


def as_json(answer: msgspec.Struct | Iterable[msgspec.Struct]) -> str:
    """One line, with names and times as the API writes them."""
    plain = msgspec.to_builtins(answer, builtin_types=(datetime,))
    return json.dumps(plain, ensure_ascii=False, default=time)
