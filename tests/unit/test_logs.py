"""Log lines as a process writes them."""

import json
import subprocess
import sys
from typing import Any

import pytest

CONFIGURED = """
import logging, threading, warnings
import structlog
from infra import logs
logs.configure("info")
"""
SECRET = "ann@example.com"
RAISING = f"""
def fail():
    raise ValueError("Key (email)=({SECRET})")
"""


def lines(code: str) -> list[dict[str, Any]]:
    """Run code in a process, and return the lines of its log. Each is an object of JSON."""
    process = subprocess.run([sys.executable, "-c", CONFIGURED + code], stderr=subprocess.PIPE, check=False)
    return [json.loads(line) for line in process.stderr.splitlines()]


def test_log_line_may_contain_any_text() -> None:
    """File names may contain bytes that are not text; Python decodes these as lone surrogates."""
    [line] = lines('structlog.get_logger().info("a", file="caf\\udce9", number=2**70, other=object)')
    assert (line["event"], line["file"], line["number"]) == ("a", "caf\udce9", 2**70)


@pytest.mark.parametrize(
    ("code", "event", "level"),
    [
        ("fail()", "process_failed", "critical"),
        ("t = threading.Thread(target=fail); t.start(); t.join()", "thread_failed", "critical"),
        ("try:\n fail()\nexcept ValueError as e:\n logging.getLogger('x').exception(f'{e}\\n{e}')", "library", "error"),
        (
            "try:\n fail()\nexcept ValueError as e:\n logging.getLogger('celery').error('Task: %r\\n', e, exc_info=e)",
            "library",
            "error",
        ),
        ("class A:\n def __del__(self): fail()\nA()", "exception_ignored", "error"),
        ("try:\n fail()\nexcept ValueError as e:\n structlog.get_logger().error('a', exc_info=True)", "a", "error"),
    ],
    ids=["uncaught", "thread", "library", "library with values", "destructor", "own"],
)
def test_exception_is_logged_as_a_line_without_its_message(code: str, event: str, level: str) -> None:
    [line] = lines(RAISING + code)
    assert (line["event"], line["level"]) == (event, level)
    assert line["exception"][0]["kind"] == "ValueError"
    assert SECRET not in json.dumps(line)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("logging.getLogger('celery.beat').info('Scheduler: Sending due task')", []),
        ("logging.getLogger('opensearch').info('POST /_bulk')", []),
        ("logging.getLogger('celery.worker').error('Cannot connect to %s\\n', 'redis')", ["Cannot connect to redis"]),
        ("logging.getLogger('uvicorn.error').error('Traceback (most recent call last):\\n x\\nEnd')", ["End"]),
        ("warnings.warn('an old option', stacklevel=1)", ["<string>:6: UserWarning: an old option"]),
    ],
)
def test_line_of_a_library_is_logged_from_its_level_on(code: str, expected: list[str]) -> None:
    assert [line["message"] for line in lines(code)] == expected


def test_repeated_warnings_are_counted_at_the_end() -> None:
    logged = lines('for n in range(1000): structlog.get_logger().warning("a", n=n)')
    assert [line.get("repeated", 1) for line in logged] == [1, 1, 1, 997]
