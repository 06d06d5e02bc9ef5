"""What every script does alike at the command line: errors for people, and names that were nearly right."""

import contextlib
import difflib
import io
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable

PARENT = "RL_MOP_PARENT"  # environment variable: the number of the process that this one is to end with


class UserError(Exception):
    """Something the user can mend. The message names the thing, what was expected and what to do."""


def warn(message: str) -> None:
    """Tell the user, in one line on stderr, of something that goes on but not as asked."""
    _print(f"warning: {message}", sys.stderr)


def say(message: str) -> None:
    """Tell the user something in one line on stdout, if there is still anyone to read it."""
    _print(message, sys.stdout)


def _print(line: str, stream) -> None:
    with contextlib.suppress(OSError):  # a closed pipe or terminal
        print(line, file=stream, flush=True)


def did_you_mean(name: str, choices: Iterable[str], count: int = 3) -> str:
    """Return ` Did you mean 'a' or 'b'?` for the choices closest to `name`, or an empty string when none is close."""
    by_lowercase = {choice.lower(): choice for choice in choices}
    close = difflib.get_close_matches(name.lower(), by_lowercase, n=count, cutoff=0.5)
    if not close:
        return ""
    return " Did you mean " + " or ".join(repr(by_lowercase[match]) for match in close) + "?"


def run_script(main: Callable[[], int | None]) -> None:
    """Run a script's `main` and leave the process: a `UserError` becomes one line on stderr and exit status 2,
    Ctrl-C becomes exit status 130, a reader that has gone away 141, and what `main` returns (None means 0) is the exit
    status otherwise. A script that another one has started ends with it, as if told to (see `PARENT`)."""
    if parent := os.environ.pop(PARENT, None):  # taken out, as it does not concern what this script starts
        threading.Thread(target=_end_with, args=(int(parent),), daemon=True).start()
    if isinstance(sys.stdout, io.TextIOWrapper):  # names of files may be what the terminal cannot show
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        status = main()
        sys.stdout.flush()
    except UserError as error:
        _print(f"error: {error}", sys.stderr)
        status = 2
    except KeyboardInterrupt:
        _print("interrupted", sys.stderr)
        status = 130
    except BrokenPipeError:
        status = 128 + signal.SIGPIPE
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:  # else Python complains of it at the very end
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    sys.exit(status)


def _end_with(parent: int) -> None:
    """Wait until the parent process is gone, then tell this one to stop: training saves first."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)
