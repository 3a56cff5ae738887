"""All that is measured, on servers of its own: `python -m tests.bench`, or `make bench`.

`SIZE=1000000` for more consumers than 100,000; `ONLY=reads,writes` for some of the parts; `CASES=deep` for those
cases of `reads` whose names contain that. The report, Markdown, is printed at the end, and is in `.local/bench/` from
the first table on. A part that fails says so there and leaves the others alone; then the exit code is 1.
"""

import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack, redirect_stdout
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path

from infra.local.servers import KEEPING, LocalServers
from infra.settings import ROOT
from tests.bench import drain, freshness, growth, machine, pgsync, reads, rebuild, relevance, sizes, upkeep, writes
from tests.bench.bench import Bench
from tests.bench.report import Report, progress

SIZE = 100_000
PARTS: dict[str, Callable[[Bench], None]] = {
    # First those that leave the data as they found it.
    "reads": reads.measure,
    "sizes": sizes.measure,
    "rebuild": rebuild.measure,
    "upkeep": upkeep.measure,
    "writes": writes.measure,
    "freshness": freshness.measure,
    "growth": growth.measure,
    "drain": lambda bench: printed(bench, drain.main),
    "pgsync": pgsync.measure,
    "relevance": lambda bench: printed(bench, relevance.main),
}

ASKED_FOR = {"relevance"}
"""Not of speed."""


def main() -> int:
    names = [name for name in os.environ.get("ONLY", "").split(",") if name] or [
        name for name in PARTS if name not in ASKED_FOR
    ]
    if unknown := [name for name in names if name not in PARTS]:
        progress(f"no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
        return 2
    # What ends it ends its servers, too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    moment = datetime.now(UTC)
    report = Report(ROOT / ".local" / "bench" / f"{moment:%Y-%m-%dT%H%M%SZ}-{machine.commit().rstrip('+')}.md")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        progress("starting the servers")
        servers = stack.enter_context(LocalServers(folder, KEEPING, environ={}))
        size = int(os.environ.get("SIZE") or SIZE)
        report.say(f"# Measured {moment:%Y-%m-%d %H:%M} UTC, commit {machine.commit()}, {size:,} consumers")
        report.table(["", ""], [*machine.described(servers), ("load at the beginning", machine.load())])
        failed = _run(names, Bench(stack, servers, report, folder, size))
        report.say(f"Load at the end: {machine.load()}.")
    sys.stdout.write(report.text())
    progress(f"the report is {report.file}")
    return bool(failed)


def printed(bench: Bench, measure: Callable[[], None]) -> None:
    """Take over the tables of a bench that has servers of its own."""
    with redirect_stdout(StringIO()) as told:
        measure()
    bench.report.say(told.getvalue().strip())


def _run(names: Sequence[str], bench: Bench) -> list[str]:
    """Measure these parts; gives those that failed."""
    failed = []
    for name in names:
        started = time.monotonic()
        bench.report.section(name)
        try:
            PARTS[name](bench)
        except Exception as error:  # noqa: BLE001 (what one part finds must not be lost with another)
            failed.append(name)
            traceback.print_exc()
            bench.report.say(f"**Failed:** {type(error).__name__}: {str(error)[:300]}")
        bench.report.say(f"*{name}: {time.monotonic() - started:.0f} s, load {machine.load()}*")
    return failed


if __name__ == "__main__":
    sys.exit(main())
