"""A drain in a process of its own that stops at a step, says so, and waits to be killed: `python stopping.py STEP`."""

import sys
from collections.abc import Callable
from typing import Any

from indexer import claims, drain
from infra import db, opensearch, settings

STEPS = {
    "claimed": (claims, "claim"),
    "aimed": (claims, "targets"),
    "read": (drain, "read_documents"),
    "written": (drain, "_write"),
    "refreshed": (drain, "refresh"),
    "forgotten": (claims, "forget"),
}


def stopping_after(step: Callable[..., Any]) -> Callable[..., Any]:
    def stopped(*given: Any, **named: Any) -> Any:
        result = step(*given, **named)
        print("there", flush=True)  # noqa: T201 (what the test waits for)
        sys.stdin.read()
        return result

    return stopped


def main() -> None:
    place, name = STEPS[sys.argv[1]]
    setattr(place, name, stopping_after(getattr(place, name)))
    chosen = settings.load()
    with db.engine(chosen).connect() as connection:
        drain.drain_round(connection, opensearch.writer(chosen))


if __name__ == "__main__":
    main()
