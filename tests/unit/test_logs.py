"""Log lines, as a process writes them."""

import json
import subprocess
import sys

CODE = """
import structlog
from infra import logs
logs.configure("info")
structlog.get_logger().info("a", file="caf\\udce9", number=2**70, other=object)
"""


def test_line_is_written_whatever_text_is_in_it() -> None:
    """A file's name may have bytes that are no text, which Python reads as halves of surrogate pairs."""
    written = subprocess.run([sys.executable, "-c", CODE], stderr=subprocess.PIPE, check=True).stderr
    line = json.loads(written)
    assert (line["event"], line["file"], line["number"]) == ("a", "caf\udce9", 2**70)
