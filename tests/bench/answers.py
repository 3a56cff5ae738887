"""Answers of an earlier release and of this code, for the golden queries, parts of values, and conditions.

`python -m tests.bench.answers COMMIT [CONSUMERS]` fills an index with the code of each, and searches the index of the
earlier release with the bodies of both, and the index of this code with its own. It prints the searches with other
hits, other scores or other matches, and takes some minutes.
"""
# ruff: noqa: T201 (prints the differences)

import pickle
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import msgspec
from opensearchpy import OpenSearch
from opensearchpy.helpers import bulk

from infra.local.servers import KEEPING, LocalServers
from infra.settings import ROOT
from tests.bench.answers_of import Body

SCRIPT = Path(__file__).with_name("answers_of.py")
AT_ONCE, SHOWN = 200, 20


def code_of(commit: str, folder: Path) -> Path:
    archive = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True, check=True)
    with tarfile.open(fileobj=BytesIO(archive.stdout)) as files:
        files.extractall(folder, filter="data")
    return folder


def fill(search: OpenSearch, code: Path, index: str, consumers: str, folder: Path) -> Sequence[Body]:
    """Make an index with the code of a release; return its searches."""
    file = folder / index
    command = [sys.executable, str(SCRIPT), str(file), consumers]
    subprocess.run(command, cwd=code, env={"PYTHONPATH": str(code)}, check=True)
    body, sources, bodies = pickle.loads(file.read_bytes())
    search.indices.create(index=index, body=body)
    actions = ({"_index": index, "_id": each, "_source": msgspec.json.decode(source)} for each, source in sources)
    bulk(search, actions, request_timeout=60)
    search.indices.refresh(index=index)
    return list(bodies)


def answers(search: OpenSearch, index: str, bodies: Sequence[Body]) -> list[Any]:
    """Return for each search the ids, sort values and matches; a text for a refused search."""
    found: list[Any] = []
    for first in range(0, len(bodies), AT_ONCE):
        lines = [line for _, body in bodies[first : first + AT_ONCE] for line in ({}, body | {"_source": False})]
        for answer in search.msearch(body=lines, index=index, request_timeout=120)["responses"]:
            hits = None if "error" in answer else answer["hits"]["hits"]
            found.append(
                "refused" if hits is None else [(hit["_id"], hit["sort"], hit.get("matched_queries")) for hit in hits]
            )
    return found


def report(name: str, bodies: Sequence[Body], before: list[Any], now: list[Any]) -> int:
    different = [text for (text, _), one, other in zip(bodies, before, now, strict=True) if one != other]
    print(f"{name}: {len(different)} of {len(bodies)} searches have another answer", *different[:SHOWN], sep="\n  ")
    return len(different)


def main() -> None:
    commit, consumers = sys.argv[1], (sys.argv[2:] or ["3000"])[0]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with LocalServers(folder / "servers", KEEPING, environ={}) as servers:
            search = OpenSearch(servers.addresses["opensearch_url"])
            earlier = fill(search, code_of(commit, folder / "earlier"), "before", consumers, folder)
            present = fill(search, ROOT, "now", consumers, folder)
            assert [text for text, _ in earlier] == [text for text, _ in present]
            before = answers(search, "before", earlier)
            different = report("its index, by this code", present, before, answers(search, "before", present))
            different += report("the index of this code", present, before, answers(search, "now", present))
    sys.exit(bool(different))


if __name__ == "__main__":
    main()
