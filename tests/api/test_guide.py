"""The examples of the guide, run as a reader would: each language in an environment of its own, against the service."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import NamedTuple

import httpx
import pytest

from api.guide.chapters import CHAPTERS, LANGUAGES, PATH, page, source
from infra.accounts import keys
from tests.service import Service, new_account

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MARK = "--- chapter "


class Chapter(NamedTuple):
    code: dict[str, str]
    output: str


def chapter_of(name: str) -> Chapter:
    """Return the code of a chapter by language, and the output; each step must be in every language."""
    code = dict.fromkeys(LANGUAGES, "")
    output = ""
    blocks = [(language, text) for language, text in BLOCK.findall(source(name)) if language in {*code, "text"}]
    while blocks:
        step = [language for language, _ in blocks[:3]]
        assert step == list(LANGUAGES), f"{name}: {step} are not the languages of a step"
        for language, text in blocks[:3]:
            code[language] += text
        blocks = blocks[3:]
        if blocks and blocks[0][0] == "text":
            output += blocks.pop(0)[1]
    return Chapter(code, output)


def program(language: str, setup: str, chapters: dict[str, Chapter]) -> str:
    """Return a program that runs the setup, and each chapter in a scope of its own."""
    text = setup
    for name, chapter in chapters.items():
        code, mark = chapter.code[language], json.dumps(MARK + name)
        if language == "sh":
            text += f"echo {mark}\n(\n{code})\n"
        elif language == "python":
            text += f"print({mark}, flush=True)\nexec({code!r}, dict(globals()))\n"
        else:
            text += f"console.log({mark});\nawait (async () => {{\n{code}}})();\n"
    return text


COMMANDS = {
    "sh": ("bash", "-euo", "pipefail", "-c"),
    "python": (sys.executable, "-c"),
    "typescript": ("node", "--input-type=module", "-e"),
}
NEEDED = {"sh": ("bash", "curl", "jq"), "python": (), "typescript": ("node",)}


@pytest.fixture(scope="module")
def chapters() -> dict[str, Chapter]:
    return {name: chapter_of(name) for name in CHAPTERS}


@pytest.fixture
def environ(service: Service) -> Iterator[dict[str, str]]:
    with new_account(service) as account, service.database.engine.begin() as connection:
        key = keys.create(connection, account.name, "test").key
        connection.commit()
        yield {**os.environ, "CONSUMERS_URL": f"{service.url}/api/v1", "CONSUMERS_KEY": key}


@pytest.mark.parametrize("language", LANGUAGES)
def test_examples_print_the_output_of_the_guide(
    language: str, chapters: dict[str, Chapter], environ: dict[str, str]
) -> None:
    if absent := [tool for tool in NEEDED[language] if not shutil.which(tool)]:
        pytest.skip(f"needs {', '.join(absent)}")
    setup = BLOCK.findall(source("quickstart"))[list(LANGUAGES).index(language)][1]
    text = program(language, setup, chapters)
    run = subprocess.run([*COMMANDS[language], text], env=environ, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    printed = dict(part.split("\n", 1) for part in run.stdout.split(MARK)[1:])
    assert printed == {name: chapter.output for name, chapter in chapters.items()}


def test_pages_are_served_offline(service: Service) -> None:
    first = httpx.get(f"{service.url}{PATH}", follow_redirects=True)
    assert first.text == page(next(iter(CHAPTERS)))
    assert first.headers["content-type"].startswith("text/html")
    for name in CHAPTERS:
        text = httpx.get(f"{service.url}{PATH}/{name}").raise_for_status().text
        links = re.findall(r'(?:href|src)="([^"]+)"', text)
        # Links to other sites are for a click; nothing is loaded from them.
        pages = [link if link.startswith("/") else f"{PATH}/{link}" for link in links if "://" not in link]
        assert {"/docs", f"{PATH}/{name}"} <= set(pages)
        assert {link for link in set(pages) if httpx.get(service.url + link, follow_redirects=True).is_error} == set()
    missing = httpx.get(f"{service.url}{PATH}/nothing")
    assert (missing.status_code, missing.json()["error"]) == (404, "Not found")
