"""A round that stops after a step, to be killed there: `python -m tests.indexer.stopping_drain STEP`.

Prints `there` when stopped.
"""

import sys
from collections.abc import Callable
from typing import Any

from indexer.drain import claims, portions
from indexer.drain import round as drain
from indexer.drain.round import drain_round
from infra import settings
from infra.database.engine import open_engine
from infra.index.client import open_writer

STEPS = {
    "claimed": (claims, "claim"),
    "aimed": (claims, "targets"),
    "read": (portions, "read_documents"),
    "written": (drain, "write_documents"),
    "refreshed": (drain, "make_searchable"),
    "forgotten": (claims, "delete_indexed"),
}


def stopping_after(step: Callable[..., Any]) -> Callable[..., Any]:
    def stop_after(*arguments: Any, **options: Any) -> Any:
        result = step(*arguments, **options)
        print("there", flush=True)  # noqa: T201 (the test waits for this line)
        sys.stdin.read()
        return result

    return stop_after


def main() -> None:
    module, name = STEPS[sys.argv[1]]
    setattr(module, name, stopping_after(getattr(module, name)))
    chosen = settings.load()
    with open_engine(chosen).connect() as connection:
        drain_round(connection, open_writer(chosen))


if __name__ == "__main__":
    main()
