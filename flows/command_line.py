"""What the flows share in a terminal: their arguments, one clear message on an error, the closing lines."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn, get_args

from prefect.exceptions import TerminationSignal
from prefect.logging.handlers import PrefectConsoleHandler

from flows.parameters import read_recipe
from rightcall.errors import RightcallError
from tasks.machine.prefect_server import start_temporary_server
from tasks.machine.terminal import errors_end_the_command, leave
from tasks.runtime.cancellation import RunCancelled

EXIT_INTERRUPTED, EXIT_TERMINATED = 130, 143
STATE_LENGTH = 120  # characters of a failed state on the screen


def arguments(name: str, description: str, stages: Any, *, recipe: bool = True) -> argparse.ArgumentParser:
    """The options of every flow; without ``recipe`` the first argument is the flow's own.

    stages: the Literal of those that it can compute again.
    """
    parser = argparse.ArgumentParser(f"python -m flows.{name}", description=description)
    if recipe:
        parser.add_argument("recipe", nargs="?", help="a recipe file; without it the embedded quickstart")
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="SECTION.FIELD=VALUE",
        help="another value for a field of the recipe, as in --set dpo.beta=0.2; may be repeated",
    )
    parser.add_argument(
        "--store",
        help="folder of the results, or s3://bucket/prefix; without it $RIGHTCALL_STORE or .rightcall/store",
    )
    parser.add_argument(
        "--fresh",
        action="append",
        default=[],
        choices=get_args(stages),
        help="compute this stage again though its result is there, and replace that; may be repeated",
    )
    return parser


def run(flow: Callable[..., Any], *, changes: tuple[str, ...] = (), **parameters: Any) -> NoReturn:
    """Call the flow, write what it returns as text, and end the process: 0, 1 failed, 130 Ctrl-C or cancelled, 143 terminated.

    changes: overrides that the flow itself puts before those of the user.
    """
    for handler in logging.getLogger().handlers:
        if isinstance(handler, PrefectConsoleHandler):
            handler.addFilter(_in_brief)
    try:
        with errors_end_the_command():
            if "recipe" in parameters:  # before a server is started for a run that cannot begin
                read_recipe(parameters["recipe"], (*changes, *parameters["overrides"]))
            signal.signal(signal.SIGTERM, _terminated)
            start_temporary_server()
            text = flow(**parameters)
    except KeyboardInterrupt:
        leave(
            EXIT_INTERRUPTED,
            "\nStopped. Nothing is lost: the same command goes on from the last complete checkpoint.\n",
        )
    except RunCancelled as err:
        leave(EXIT_INTERRUPTED, f"\nCancelled: {err}\n")
    except TerminationSignal:
        leave(
            EXIT_TERMINATED,
            "\nTerminated. Nothing is lost: the same command goes on from the last complete checkpoint.\n",
        )
    leave(0, f"\n{text}\n" if isinstance(text, str) else "", sys.stdout)


def _terminated(number: int, frame: FrameType | None) -> NoReturn:
    """Ends as after Ctrl-C, with everything closed: Prefect sends the signal again when it has noted the run's state."""
    raise TerminationSignal(number)


def _in_brief(record: logging.LogRecord) -> bool:
    """Keep a RightcallError's traceback off the screen: its message comes last, the run's log has it all."""
    if record.exc_info and isinstance(record.exc_info[1], RightcallError):
        return False
    text = record.getMessage()
    if text.startswith("Finished in state Failed(") and len(text) > STATE_LENGTH:
        record.msg, record.args = f"{text[:STATE_LENGTH]} …", ()
    return True
