"""`drive-assets`: each command does what the UI does, on the same Dagster instance."""

import argparse
import os
import signal
import sys
import threading
import warnings

from drive_assets.commands import graph, recordings, servers
from model.common.errors import DataError
from model.common.processes import hide_from_others

BROKEN_PIPE = 128 + signal.SIGPIPE


def main(arguments: list[str] | None = None) -> None:
    """Run a command and exit: 0 all succeeded, 1 something failed after the rest was done, 2 wrong input."""
    warnings.filterwarnings("ignore", module="dagster")
    hide_from_others()
    interrupted = _handle_interrupts()
    options = parser().parse_args(arguments)
    try:
        status = 0 if options.command(options) else 1
        sys.stdout.flush()
    except DataError as error:
        status = _fail(error, 2)
    except KeyboardInterrupt:
        status = 130
    except BrokenPipeError:  # the reader of a pipe has ended, as in `drive-assets status | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes it at exit
        status = BROKEN_PIPE
    except Exception as error:
        status = 130 if interrupted.is_set() else _explain(error)
    sys.exit(status)


def parser() -> argparse.ArgumentParser:
    """The parser of all commands; `options.command` does what was asked for."""
    parser = argparse.ArgumentParser(prog="drive-assets", description="From recorded drives to compared models.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for group in (recordings, graph, servers):
        group.add_commands(commands)
    return parser


def _handle_interrupts() -> threading.Event:
    """SIGINT and SIGTERM raise KeyboardInterrupt.

    Returns:
        An event that is set then: Python and libraries turn the interruption of an import into errors of their own.
    """
    interrupted = threading.Event()

    def interrupt(*_: object) -> None:
        interrupted.set()
        raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, interrupt)
    return interrupted


def _explain(error: Exception) -> int:
    """Report an error of Dagster's database or of the terminal in a sentence; raise any other."""
    from drive_assets.running.database_errors import explain, is_database_error
    from drive_assets.running.home import prepare_home

    if is_database_error(error):
        return _fail(explain(error, prepare_home()), 1)
    raise error


def _fail(reason: object, status: int) -> int:
    print(f"drive-assets: {reason}", file=sys.stderr)
    return status


if __name__ == "__main__":
    main()
