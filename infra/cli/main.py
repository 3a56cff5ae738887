"""The command `consumers`: manage organizations, keys, imports, exports and the index, and set up a deployment."""

import gc
import sys
from importlib import import_module
from importlib.util import find_spec

import typer

from infra.errors import ExplainedError
from infra.logs import discarded

COMMANDS = {
    "org": "organizations",
    "key": "keys",
    "operator": "operators",
    "import": "imports",
    "export": "exports",
    "index": "index",
    "migrate": "setup",
    "demo": "setup",
    "alive": "setup",
    "doctor": "doctor",
}
"""The module in `infra.cli` of each command. All modules together take half of the time of a short command, and health
checks run such a command again and again."""

# The local servers are an optional dependency, absent from the image of the service.
if find_spec("mirakuru"):
    COMMANDS["up"] = "local"


def command_line(*names: str) -> typer.Typer:
    """Return the command line with some of the commands."""
    app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
    app.callback()(consumers)
    for name in names:
        command = import_module(f"infra.cli.{COMMANDS[name]}")
        if group := getattr(command, "app", None):
            app.add_typer(group, name=name)
        else:
            app.command(name)(getattr(command, name))
    return app


def consumers() -> None:
    """Manage the consumers service.

    The addresses of the servers come from the environment variables
    DATABASE_URL, REDIS_URL and OPENSEARCH_URL. By default, the commands use
    the local servers started by `make up`.
    """


INTERRUPTED = 130
"""Exit status after Ctrl-C."""


def main() -> None:
    # Imports create many objects and no garbage: the collector would take a quarter of their time for nothing.
    gc.disable()
    named = [name for name in sys.argv[1:2] if name in COMMANDS]
    try:
        app = command_line(*(named or COMMANDS))
        gc.enable()
        with discarded():
            app()
    except ExplainedError as error:
        print(error, file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
