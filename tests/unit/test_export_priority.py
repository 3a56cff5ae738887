"""The process of an export gives way to all other processes of the machine."""

import os
import subprocess
import sys
from pathlib import Path

from indexer.exports.exporter import NICENESS, _lower_priority


def test_priority_is_low_also_among_sessions() -> None:
    command = [sys.executable, "-c", "input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) as process:
        _lower_priority(process.pid)
        assert os.getpriority(os.PRIO_PROCESS, process.pid) == NICENESS
        session = Path(f"/proc/{process.pid}/autogroup")
        if session.exists():
            assert session.read_text("utf-8").split()[1:] == ["nice", str(NICENESS)]
        assert process.stdin
        process.stdin.write(b"\n")
