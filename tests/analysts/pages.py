"""The pages for analysts: their blocks of code, and the fifteen questions."""

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from infra.settings import ROOT

DOCS = ROOT / "docs"
NOTEBOOKS = DOCS / "notebooks"
BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
RESULT = re.compile(r"\n-- sample data: (.+)$")


class Question(NamedTuple):
    """A question of docs/analysts-questions.md."""

    sql: str
    result: str | None
    """The answer that the page shows, of the sample data."""
    live: dict[str, Any] | None
    """The body of the live question."""


def blocks(page: str, language: str) -> list[str]:
    """Return the blocks of code of a page, in a language."""
    text = (DOCS / page).read_text("utf-8")
    return [
        re.sub(f"^{indent}", "", code, flags=re.MULTILINE)
        for indent, name, code in BLOCK.findall(text)
        if name == language
    ]


def block_with(page: str, language: str, part: str) -> str:
    """Return the only block of code that contains a part."""
    [block] = [block for block in blocks(page, language) if part in block]
    return block


def questions() -> dict[str, Question]:
    """Return the questions by their titles."""
    text = (DOCS / "analysts-questions.md").read_text("utf-8")
    titled = re.split(r"^## (.+)\n", text, flags=re.MULTILINE)[1:]
    return {title: _question(section) for title, section in zip(titled[::2], titled[1::2], strict=True)}


def _question(section: str) -> Question:
    code = {language: text.strip() for _, language, text in BLOCK.findall(section)}
    result = RESULT.search(code["sql"])
    sql = RESULT.sub("", code["sql"])
    assert sql.endswith(";"), sql
    live = json.loads(code["json"]) if "json" in code else None
    return Question(sql.removesuffix(";"), result.group(1) if result else None, live)


def notebooks() -> list[Path]:
    return sorted(NOTEBOOKS.glob("*.py"))
