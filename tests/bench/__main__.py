"""Run the benchmarks on separate servers: `python -m tests.bench`, or `make bench`.

Variables: `SIZE=1000000` sets the number of consumers (default 100,000), `ONLY=reads,writes` selects parts,
`CASES=deep` selects cases of `reads` by a part of their name, `ATTACK=typos,members` selects attacks of `neighbours`,
`ATTACK_SECONDS=12` sets the time of each attack, `QUESTIONS=10000` adds live questions to `questions`,
`ORDERS=10000000` and `ORDERS_PER_CONSUMER=10` (default 3) set the largest file of `imports`, and `DEAD=7000000` sets
the number of deleted outbox rows of `held`.
The report is Markdown, printed at the end, and written to `.local/bench/` after each table. A failed part is noted in
the report and does not stop the other parts; the exit code is then 1.
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
from tests.bench import (
    drain,
    exports,
    fairness,
    freshness,
    growth,
    held,
    imports,
    large,
    machine,
    neighbours,
    pgsync,
    questions,
    reads,
    rebuild,
    relevance,
    sizes,
    stalls,
    upkeep,
    writes,
)
from tests.bench.bench import Bench
from tests.bench.report import Report, progress

SIZE = 100_000
PARTS: dict[str, Callable[[Bench], None]] = {
    # First the parts that do not change the data.
    "reads": reads.measure,
    "sizes": sizes.measure,
    "rebuild": rebuild.measure,
    "export": exports.measure,
    "questions": questions.measure,
    "upkeep": upkeep.measure,
    "imports": imports.measure,
    "writes": writes.measure,
    "freshness": freshness.measure,
    "growth": growth.measure,
    "drain": lambda bench: add_output(bench, drain.main),
    "fairness": fairness.measure,
    "neighbours": neighbours.measure,
    "stalls": stalls.measure,
    "pgsync": pgsync.measure,
    "held": held.measure,
    "large": large.measure,
    "relevance": lambda bench: add_output(bench, relevance.main),
}

ON_REQUEST = {"relevance", "held", "large"}
"""Parts that run only if named in ONLY: the first does not measure speed, the others repeat parts or fill the disk."""


def main() -> int:
    names = [name for name in os.environ.get("ONLY", "").split(",") if name] or [
        name for name in PARTS if name not in ON_REQUEST
    ]
    if unknown := [name for name in names if name not in PARTS]:
        progress(f"unknown parts in ONLY: {', '.join(unknown)}; known parts are {', '.join(PARTS)}")
        return 2
    # SIGTERM must also stop the servers.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    moment = datetime.now(UTC)
    report = Report(ROOT / ".local" / "bench" / f"{moment:%Y-%m-%dT%H%M%SZ}-{machine.commit().rstrip('+')}.md")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        progress("starting the servers")
        servers = stack.enter_context(LocalServers(folder, KEEPING, environ={}))
        size = int(os.environ.get("SIZE") or SIZE)
        report.say(f"# Measured {moment:%Y-%m-%d %H:%M} UTC, commit {machine.commit()}, {size:,} consumers")
        report.table(["", ""], [*machine.described(servers), ("load at the start", machine.load())])
        failed = _run(names, Bench(stack, servers, report, folder, size))
        report.say(f"Load at the end: {machine.load()}.")
    sys.stdout.write(report.text())
    progress(f"the report is {report.file}")
    return bool(failed)


def add_output(bench: Bench, measure: Callable[[], None]) -> None:
    """Run a benchmark with separate servers, and add its output to the report."""
    with redirect_stdout(StringIO()) as output:
        measure()
    bench.report.say(output.getvalue().strip())


def _run(names: Sequence[str], bench: Bench) -> list[str]:
    """Measure parts, and return the names of the failed parts."""
    failed = []
    for name in names:
        started = time.monotonic()
        bench.report.section(name)
        try:
            PARTS[name](bench)
        except Exception as error:  # noqa: BLE001 (a failed part must not lose the results of others)
            failed.append(name)
            traceback.print_exc()
            bench.report.say(f"**Failed:** {type(error).__name__}: {str(error)[:300]}")
        bench.report.say(f"*{name}: {time.monotonic() - started:.0f} s, load {machine.load()}*")
    return failed


if __name__ == "__main__":
    sys.exit(main())
