"""What every script does alike at the command line: errors for people, and names that were nearly right."""

import difflib
import sys
from collections.abc import Callable, Iterable


class UserError(Exception):
    """Something the user can mend. The message names the thing, what was expected and what to do."""


def warn(message: str) -> None:
    """Tell the user, in one line on stderr, of something that goes on but not as asked."""
    print(f"warning: {message}", file=sys.stderr, flush=True)


def did_you_mean(name: str, choices: Iterable[str], count: int = 3) -> str:
    """Return ` Did you mean 'a' or 'b'?` for the choices closest to `name`, or an empty string when none is close."""
    by_lowercase = {choice.lower(): choice for choice in choices}
    close = difflib.get_close_matches(name.lower(), by_lowercase, n=count, cutoff=0.5)
    if not close:
        return ""
    return " Did you mean " + " or ".join(repr(by_lowercase[match]) for match in close) + "?"


def run_script(main: Callable[[], int | None]) -> None:
    """Run a script's `main` and leave the process: a `UserError` becomes one line on stderr and exit status 2,
    Ctrl-C becomes exit status 130, and what `main` returns (None means 0) is the exit status otherwise."""
    try:
        status = main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = 130
    sys.exit(status)
