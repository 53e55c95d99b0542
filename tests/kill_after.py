"""Run the command line and kill it with SIGKILL right after a step: kill_after.py STEP ARGUMENTS…

Steps are counted from 0 over the whole run; "list" prints them instead. The rotation tells its progress
after each step, so that is where the kill hangs.
"""

import itertools
import os
import signal
import sys

from tskeys.cli import main, progress

wanted = sys.argv[1]
numbers = itertools.count()


def told(self: progress.Progress, step: str) -> None:
    number = next(numbers)
    if wanted == "list":
        print(f"step {step}")
    elif number == int(wanted):
        os.kill(os.getpid(), signal.SIGKILL)


progress.Progress.__call__ = told  # type: ignore[method-assign]
sys.argv = ["tskeys", *sys.argv[2:]]
sys.exit(main())
