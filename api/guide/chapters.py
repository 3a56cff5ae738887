"""The guide for client developers: Markdown files of this folder, rendered once for each process.

A chapter shows each step as three code blocks in a row: `sh`, `python` and `typescript`. A following `text` block is
the output, the same for the three. `tests/api/test_guide.py` runs all blocks.
"""

from functools import cache
from html import escape
from importlib.resources import files
from string import Template

from markdown_it import MarkdownIt
from pygments import highlight
from pygments.formatters.html import HtmlFormatter
from pygments.lexers import get_lexer_by_name

PATH = "/docs/guide"
LANGUAGES = {"sh": "curl", "python": "Python", "typescript": "TypeScript"}
CHAPTERS = {
    "quickstart": "Quickstart",
    "authentication": "Authentication and test mode",
    "pagination": "Pagination",
    "searching": "Searching and filters",
    "own-writes": "Reading your own writes",
    "errors": "Errors and retries",
    "safe-writes": "Safe writes",
    "syncing": "Syncing from another system",
    "following-changes": "Following changes",
    "limits": "Limits",
    "personal-data": "Personal data",
}
"""The title of each chapter by its name, in the order of a reader."""

_FOLDER = files("api.guide")
_FORMATTER = HtmlFormatter(nowrap=True)


def source(name: str) -> str:
    """Return a chapter as Markdown.

    Raises:
        KeyError: there is no such chapter.
    """
    if name not in CHAPTERS:
        raise KeyError(name)
    return _FOLDER.joinpath(f"{name}.md").read_text("utf-8")


@cache
def page(name: str) -> str:
    """Return a chapter as a page of HTML.

    Raises:
        KeyError: there is no such chapter.
    """
    chapters = "".join(
        f'<a href="{PATH}/{chapter}"{" aria-current=page" if chapter == name else ""}>{escape(title)}</a>'
        for chapter, title in CHAPTERS.items()
    )
    languages = "".join(
        f'<label><input type="radio" name="language" id="{language}"{" checked" if language == "sh" else ""}>'
        f"{escape(label)}</label>"
        for language, label in LANGUAGES.items()
    )
    return _template().substitute(
        title=escape(CHAPTERS[name]),
        chapters=chapters,
        languages=languages,
        # A link of one chapter to another names the file, so that it also works in a viewer of the repository.
        content=_markdown().render(source(name)).replace('.md"', '"'),
        colors=HtmlFormatter().get_style_defs(),
    )


@cache
def _template() -> Template:
    return Template(_FOLDER.joinpath("page.html").read_text("utf-8"))


@cache
def _markdown() -> MarkdownIt:
    return MarkdownIt("commonmark", {"highlight": _highlighted}).enable("table")


def _highlighted(code: str, language: str, _attributes: str) -> str:
    """Return a code block with its colors; the page shows the blocks of one language at a time."""
    lexer = get_lexer_by_name(language or "text")
    kind = f' class="language {language}"' if language in LANGUAGES else ""
    return f"<pre{kind}><code>{highlight(code, lexer, _FORMATTER)}</code></pre>"
