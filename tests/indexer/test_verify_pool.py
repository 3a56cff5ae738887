"""Comparison processes: same differences as threads, and ended with their worker."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from indexer.verify.pool import PROCESS_THRESHOLD
from infra.operations.verify import Run, find_run, request_run
from infra.settings import ROOT
from tests.indexer.comparison import compare_index
from tests.indexer.conftest import Pipeline
from tests.indexer.index_faults import FAULTS
from tests.waiting import wait_until

COMPARING_PROCESS = """
import sys
from indexer.verify.compare import Scope, index_of
from indexer.verify.pool import PROCESS_THRESHOLD, ComparisonPool
from indexer.verify.ranges import IdRange
from infra import settings
from infra.database.engine import open_engine
from infra.index.client import open_writer

def main():
    chosen = settings.load()
    engine, client = open_engine(chosen), open_writer(chosen)
    scope = Scope(index_of(engine, sys.argv[1]), None)
    submit = ComparisonPool(chosen, engine, client).submitter(scope, PROCESS_THRESHOLD)
    print(submit(IdRange("", None)).result().compared, flush=True)
    sys.stdin.read()

if __name__ == "__main__":
    main()
"""

WORKER_MODULE = """
from indexer.verify import pool
pool.PROCESS_THRESHOLD = 0
from indexer.worker import app
"""


def test_processes_find_the_same_differences_as_threads(pipeline: Pipeline) -> None:
    pipeline.run("INSERT INTO consumers (environment_id, full_name) SELECT :e, 'n' || n FROM generate_series(1, 24) n")
    pipeline.drain()
    ids = [id_ for (id_,) in pipeline.run("SELECT id FROM consumers ORDER BY id")]
    wrong = {fault.plant(pipeline, id_): fault.cause for fault, id_ in zip(FAULTS.values(), ids, strict=False)}
    assert compare_index(pipeline, rows=5, consumers=PROCESS_THRESHOLD).causes == wrong


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_comparison_processes_end_with_a_killed_worker(pipeline: Pipeline, tmp_path: Path) -> None:
    script = tmp_path / "working.py"
    script.write_text(COMPARING_PROCESS)
    command, environ = [sys.executable, str(script), pipeline.index_name], os.environ | pipeline.database.environ
    with subprocess.Popen(command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout
        assert worker.stdout.readline() == "0\n"
        children = Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text().split()
        assert len(children) > 1
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children), what="the processes to end")


def test_celery_worker_compares_in_processes(pipeline: Pipeline, tmp_path: Path) -> None:
    (tmp_path / "patched.py").write_text(WORKER_MODULE)
    pipeline.insert_consumer()
    pipeline.drain()
    with pipeline.database.engine.begin() as connection:
        number = request_run(connection, "verify")
    celery, environ = [sys.executable, "-m", "celery", "-A", "patched"], os.environ | pipeline.database.environ
    environ["PYTHONPATH"] = str(tmp_path)
    with (tmp_path / "log").open("w") as log:
        command = [*celery, "worker", "-Q", "rebuild", "-c", "1", "--without-gossip"]
        worker = subprocess.Popen(command, env=environ, cwd=ROOT, stdout=log, stderr=log)
        try:
            request = [*celery, "call", "indexer.compare", "--queue", "rebuild"]
            subprocess.run(request, env=environ, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)

            def finished_run() -> Run | None:
                with pipeline.database.engine.connect() as connection:
                    run = find_run(connection, number)
                return run if run and (run.is_over or run.error) else None

            wait_until(finished_run, 60, "the run")
        finally:
            worker.terminate()
            worker.wait(30)
    run = finished_run()
    assert run
    assert (run.error, run.compared, run.agrees) == (None, 1, True)
