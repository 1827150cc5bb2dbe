"""``python -m bootc``, and what the program ``bootc`` runs.

Importing the command takes a while, and nothing is begun before it has been imported. So
Ctrl-C ends the process at once during that time, without a word. The module that Python's
own ``signal`` stands on is used because that one takes a while to import, too.
"""

import _signal  # type: ignore[import-not-found]
import sys


def main() -> int:
    """Run the command line of this process and return its exit code."""
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    from bootc.cli.main import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
