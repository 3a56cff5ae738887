"""docs/guarantees.md names only files and tests that exist."""

import ast
import re

import pytest

from infra.settings import ROOT

DOCUMENT = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")


def named_tests() -> list[tuple[str, str]]:
    """Return file and test of each mention; `::test_x` without a file belongs to the file mentioned before."""
    tests, file = set(), ""
    for name, test in re.findall(r"`(?:tests/)?([\w/]+\.py)?(?:::(test_\w+))?`", DOCUMENT):
        file = name or file
        if name or test:
            tests.add((file, test))
    return sorted(tests)


NAMED = named_tests()


def functions(file: str) -> list[str]:
    """Return the names of the functions and classes in a file of the tests, which must exist."""
    path = ROOT / "tests" / file
    return [node.name for node in ast.parse(path.read_text(encoding="utf-8")).body if hasattr(node, "name")]


@pytest.mark.parametrize(("file", "test"), NAMED)
def test_test_named_in_the_guarantees_exists(file: str, test: str) -> None:
    existing = functions(file)
    assert not test or test in existing


def test_guarantees_name_tests() -> None:
    assert len(NAMED) > 50
