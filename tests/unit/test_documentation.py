"""The pages for operators: links lead to existing sections, and settings and commands are those of the code."""

import re
import shlex
from pathlib import Path
from typing import Any

import msgspec
import pytest
import typer
from typer.core import TyperGroup

from infra.cli.main import COMMANDS, command_line
from infra.doctor import catalog
from infra.doctor.checks import name_of
from infra.settings import ROOT, Settings

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"```.*?```", re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page: those of the headings, as GitHub makes them, and those of HTML."""
    text = page.read_text("utf-8")
    headings = re.findall(r"^#+ (.+)$", BLOCK.sub("", text), re.MULTILINE)
    made = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return made | set(re.findall(r'<a id="([^"]+)"', text))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_to_existing_sections(page: Path) -> None:
    text = BLOCK.sub("", page.read_text("utf-8"))
    for link in LINK.findall(text):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", ["deploying", "scaling", "upgrading", "backup", "operations"])
def test_readme_names_the_pages_for_operators(page: str) -> None:
    assert f"](docs/{page}.md)" in (ROOT / "README.md").read_text("utf-8")


def test_table_of_settings_has_each_setting_with_its_default() -> None:
    section = (ROOT / "docs/operations.md").read_text("utf-8").partition("\n## Settings\n")[2].partition("\n## ")[0]
    defaults: dict[str, str] = {}
    for names, values in re.findall(r"^\| (`[A-Z_`, ]+`) \| ([^|]+) \|", section, re.MULTILINE):
        listed = re.findall("`([A-Z_]+)`", names)
        separate = values.split(", ") if len(listed) > 1 else [values]
        defaults |= dict(zip(listed, (value.strip().strip("`") for value in separate), strict=True))
    assert set(defaults) == {name.upper() for name in Settings.__struct_fields__}
    for field in msgspec.structs.fields(Settings):
        # Text in the table for the others: they have no default, or one that depends on something else.
        if isinstance(field.default, str | int) and field.default != "":
            expected = str(field.default)
            assert defaults[field.name.upper()] == (expected.lower() if isinstance(field.default, bool) else expected)


def commands(text: str) -> set[tuple[str, ...]]:
    """Return the commands `consumers …` of a page, in its text and in its blocks: subcommands, then options."""
    words = r"consumers((?: [a-z][a-z-]*)(?: (?:--)?[a-z-]+)*)"
    blocks = "".join(BLOCK.findall(text))
    found = re.findall(f"`{words}", BLOCK.sub("", text)) + re.findall(f"(?:^|bin/|-- ){words}", blocks, re.MULTILINE)
    return {tuple(match.split()) for match in found}


@pytest.mark.parametrize(
    "page", ["analysts", "analysts-tools", "backup", "deploying", "operations", "scaling", "upgrading"]
)
def test_documented_commands_exist(page: str) -> None:
    documented = commands((ROOT / f"docs/{page}.md").read_text("utf-8"))
    assert documented
    for words in documented:
        command: Any = typer.main.get_group(command_line(*COMMANDS))
        for word in words:
            if word.startswith("--"):
                options = {option for parameter in command.params for option in parameter.opts}
                assert word in options, words
            elif isinstance(command, TyperGroup):
                assert word in command.commands, words
                command = command.commands[word]
            else:
                break


def test_page_has_each_subject_of_doctor() -> None:
    text = (ROOT / "docs/deploying.md").read_text("utf-8")
    subjects = {name_of(check).partition(".")[0] for check in catalog.ALL}
    assert set(re.findall(r"^\| `([a-z_]+)` \|", text.partition("## Doctor")[2], re.MULTILINE)) == subjects


def test_files_named_for_deployments_exist() -> None:
    for page in ("deploying", "upgrading", "backup"):
        for block in re.findall(r"```sh\n(.*?)```", (ROOT / f"docs/{page}.md").read_text("utf-8"), re.DOTALL):
            for word in shlex.split(block.replace("…", ""), comments=True):
                if word.startswith("infra/"):
                    assert list(ROOT.glob(word)), word
