"""A round killed at any step is repeated by another drain, without harm."""

import os
import subprocess
import sys

import pytest

from tests.indexer.conftest import Pipeline
from tests.indexer.stopping_drain import STEPS
from tests.waiting import wait_until


@pytest.mark.parametrize("step", STEPS)
def test_round_killed_after_a_step_is_repeated_by_another(pipeline: Pipeline, step: str) -> None:
    changed, gone = pipeline.insert_consumer("Before"), pipeline.insert_consumer()
    pipeline.drain()
    pipeline.rename(changed, "After")
    pipeline.delete(gone)
    command = [sys.executable, "-m", "tests.indexer.stopping_drain", step]
    environ = os.environ | pipeline.database.environ
    with subprocess.Popen(command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as killed:
        assert killed.stdout is not None
        assert killed.stdout.readline() == b"there\n"
        assert pipeline.round().rows == 0, "a living drain keeps its rows locked"
        # A change made meanwhile is free for another drain, and newer.
        pipeline.rename(changed, "Meanwhile")
        assert pipeline.round().rows == 1
        killed.kill()
    assert pipeline.waiting() > 0
    wait_until(lambda: pipeline.round().rows or not pipeline.waiting(), what="the killed drain's rows")
    pipeline.drain()
    assert pipeline.waiting() == 0
    assert pipeline.visible() == {changed}
    assert pipeline.document(changed)["fullName"] == "Meanwhile"
    assert pipeline.document(gone)["deleted"] is True
