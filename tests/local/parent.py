# ruff: noqa: T201 - the test reads the output
"""A parent of local servers for tests to end: `python -m tests.local.parent FOLDER`.

Prints the addresses and process ids of the servers as a line of JSON, then messages about restarts.
"""

import json
import sys
from functools import partial
from pathlib import Path

from infra.local.errors import LocalError
from infra.local.folder import held
from infra.local.servers import THROWAWAY, LocalServers
from infra.local.signals import interrupting
from infra.local.watch import keep_running


def main(folder: Path) -> None:
    with (
        interrupting(),
        held(folder, "an address") as lock,
        LocalServers(folder, THROWAWAY, environ={}, keep_open=[lock]) as servers,
    ):
        pids = {server.name: server.pid for server in servers.running.values()}
        print(json.dumps({"addresses": servers.addresses, "pids": pids}), flush=True)
        keep_running(list(servers.running.values()), partial(print, flush=True))


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except LocalError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        print("Stopped.")
