"""Log lines as a process writes them."""

import json
import subprocess
import sys

CODE = """
import structlog
from infra import logs
logs.configure("info")
structlog.get_logger().info("a", file="caf\\udce9", number=2**70, other=object)
"""


def test_log_line_may_contain_any_text() -> None:
    """File names may contain bytes that are not text; Python decodes these as lone surrogates."""
    written = subprocess.run([sys.executable, "-c", CODE], stderr=subprocess.PIPE, check=True).stderr
    line = json.loads(written)
    assert (line["event"], line["file"], line["number"]) == ("a", "caf\udce9", 2**70)
