"""What the flows share in a terminal: their arguments, one clear message on an error, the closing lines."""

from __future__ import annotations

import argparse
import logging
import re
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn, get_args

from prefect.exceptions import TerminationSignal
from prefect.logging.handlers import PrefectConsoleHandler

from flows.parameters import read_recipe
from rightcall import errors
from rightcall.errors import RightcallError
from tasks.machine.prefect_server import start_temporary_server
from tasks.machine.terminal import EXIT_INTERRUPTED, errors_end_the_command, leave
from tasks.runs.inputs import check_inputs
from tasks.runs.model_names import is_source
from tasks.runtime.cancellation import RunCancelled
from tasks.store.opening import open_store

EXIT_TERMINATED = 143
OURS = "|".join(kind.__name__ for kind in vars(errors).values() if isinstance(kind, type))
FAILED = re.compile(rf"Finished in state Failed\(.*?\b({OURS})\b", re.DOTALL)  # a state holds the error's whole message


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
    signal.signal(signal.SIGINT, _interrupted)
    try:
        with errors_end_the_command():
            _refuse_early(changes, parameters)
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


def _refuse_early(changes: tuple[str, ...], parameters: dict[str, Any]) -> None:
    """Before a server is started for a run that cannot begin.

    Raises:
        RecipeError: it does not load, or names what is not there.
        StoreError: the store cannot be written.
    """
    recipe = read_recipe(parameters["recipe"], (*changes, *parameters["overrides"]))
    if parameters.get("approve") is None:  # that one is between MLflow and a person
        open_store(parameters["store"])
        check_inputs(recipe, base_model="model" not in parameters or is_source(parameters["model"]))


def _interrupted(number: int, frame: FrameType | None) -> NoReturn:
    """Says so at once: what comes next may take as long as a training job needs for its checkpoint."""
    sys.stderr.write("\nStopping: a job that has trained saves a checkpoint first. Ctrl-C again ends it at once.\n")
    sys.stderr.flush()
    raise KeyboardInterrupt


def _terminated(number: int, frame: FrameType | None) -> NoReturn:
    """Ends as after Ctrl-C, with everything closed: Prefect sends the signal again when it has noted the run's state."""
    raise TerminationSignal(number)


def _in_brief(record: logging.LogRecord) -> bool:
    """Keep a RightcallError's traceback and the states that repeat it off the screen: its whole message comes last."""
    if record.exc_info and isinstance(record.exc_info[1], RightcallError):
        return False
    if found := FAILED.match(record.getMessage()):
        record.msg, record.args = f"Finished in state Failed: {found[1]}, all of it in the last lines", ()
    return True
