"""`consumers index rebuild`, `cancel`, `pause`, `resume`, `rollback` and `drop`: a command for each request.

A command writes the request into the database, and workers carry out the request.
"""

import sys
import time
from collections.abc import Callable
from typing import Annotated

import typer

from infra.cli.output import Json, print_json, rebuild_line
from infra.cli.progress import ProgressDisplay
from infra.cli.transaction import transaction
from infra.operations.rebuild import REQUESTS, SUMMARIES, Rebuild, Request, by_id
from infra.queue import BUILD, TaskQueue
from infra.settings import load

POLL_SECONDS = 0.5
WITH_WAIT: frozenset[Request] = frozenset({"rebuild", "cancel", "rollback"})
"""All further requests take effect at once."""
EXIT_STATUS = "Exit status: 0; 1 if the request is refused, or if the rebuild has failed when --wait ends."

Wait = Annotated[bool, typer.Option("--wait", help="Wait for the result, and show the progress.")]


def add_commands(app: typer.Typer) -> None:
    """Add the command of each request."""
    for request in REQUESTS:
        app.command(request, help=f"{SUMMARIES[request]}.\n\n{EXIT_STATUS}")(_command(request))


def _command(request: Request) -> Callable[..., None]:
    def with_wait(*, wait: Wait = False, json: Json = False) -> None:
        _make(request, wait=wait, json=json)

    def without_wait(*, json: Json = False) -> None:
        _make(request, wait=False, json=json)

    return with_wait if request in WITH_WAIT else without_wait


def _make(request: Request, *, wait: bool, json: bool) -> None:
    """Make a request, and print the rebuild; exit with 1 if `wait` is set and the rebuild has failed."""
    settings = load()
    with transaction() as connection:
        rebuild = REQUESTS[request](connection, settings)
    # After the commit, so that the worker finds the request.
    task_queue = TaskQueue(settings)
    task_queue.send(BUILD)
    task_queue.close()
    if wait:
        rebuild = _follow(rebuild)
    if json:
        print_json(rebuild)
    else:
        typer.echo(rebuild_line(rebuild))
    if wait and rebuild.phase == "failed":
        sys.exit(1)


def _follow(rebuild: Rebuild) -> Rebuild:
    """Show the progress of a rebuild until the rebuild ends."""
    with ProgressDisplay() as display:
        while rebuild.is_running:
            time.sleep(POLL_SECONDS)
            with transaction() as connection:
                rebuild = by_id(connection, rebuild.id)
            display.show(rebuild_line(rebuild), completed=rebuild.documents, total=rebuild.total or None)
    return rebuild
