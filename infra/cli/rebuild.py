"""`consumers index rebuild`, and what else may be asked of the index: a row is written, and workers act."""

import sys
import time
from typing import Annotated

import typer

from infra.cli.output import Json, print_json, rebuild_line
from infra.cli.progress import ProgressDisplay
from infra.cli.transaction import transaction
from infra.operations import rebuild as rebuilds
from infra.operations.rebuild import Rebuild
from infra.queue import BUILD, REBUILD, TaskQueue
from infra.settings import load

POLL_SECONDS = 0.5

Wait = Annotated[bool, typer.Option("--wait", help="Until it is over, and show how far it is.")]


def rebuild(*, wait: Wait = False, json: Json = False) -> None:
    """Build the index anew beside the one that is read, and read it once it is verified."""
    _ask("rebuild", wait=wait, json=json)


def cancel(*, wait: Wait = False, json: Json = False) -> None:
    """Give up what is being built; readers never noticed it."""
    _ask("cancel", wait=wait, json=json)


def pause(*, json: Json = False) -> None:
    """Let what is being built rest; it goes on being given all changes."""
    _ask("pause", wait=False, json=json)


def resume(*, json: Json = False) -> None:
    """End the rest."""
    _ask("resume", wait=False, json=json)


def rollback(*, wait: Wait = False, json: Json = False) -> None:
    """Read the index before the last rebuild again; it has every change since."""
    _ask("rollback", wait=wait, json=json)


def drop(*, json: Json = False) -> None:
    """Let the index before the last rebuild go before its time; there is no rollback after."""
    _ask("drop", wait=False, json=json)


COMMANDS = (rebuild, cancel, pause, resume, rollback, drop)


def _ask(name: str, *, wait: bool, json: bool) -> None:
    settings = load()
    with transaction() as connection:
        answer = rebuilds.REQUESTS[name](connection, settings)
    # Only now, for it is about what is committed.
    task_queue = TaskQueue(settings)
    task_queue.send(BUILD, REBUILD)
    task_queue.close()
    if wait:
        answer = _follow(answer)
    if json:
        print_json(answer)
    else:
        typer.echo(rebuild_line(answer))
    if wait and answer.phase == "failed":
        sys.exit(1)


def _follow(answer: Rebuild) -> Rebuild:
    """Show the progress of a rebuild until the rebuild ends."""
    with ProgressDisplay() as display:
        while answer.is_running:
            time.sleep(POLL_SECONDS)
            with transaction() as connection:
                answer = rebuilds.of(connection, answer.id)
            display.show(rebuild_line(answer), completed=answer.documents, total=answer.total or None)
    return answer
