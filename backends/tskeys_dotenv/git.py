"""Whether git would take a file along: the one thing that makes a `.env` file public."""

import os

from tskeys.errors import ProcessError

OUTSIDE, IGNORED, EXPOSED, TRACKED = "outside", "ignored", "exposed", "tracked"

_TIMEOUT = 20.0  # seconds
_GIT = ("git", "-c", "core.fsmonitor=false")  # a repository's own config could run a program there


def state(directory: str, leaf: str) -> str:
    """Return OUTSIDE, IGNORED, EXPOSED or TRACKED, or why git refuses to tell.

    OUTSIDE is also a tree on a machine without git: nothing is committed there.
    """
    directory = os.path.realpath(directory)
    if not _in_tree(directory):
        return OUTSIDE
    from tskeys import process  # late: most files lie in no tree

    try:
        listed = process.run(
            [*_GIT, "-C", directory, "ls-files", "--", f":(literal){leaf}"], timeout=_TIMEOUT
        )
        if listed.status:
            return listed.errors.partition("\n")[0]
        if listed.output.reveal():
            return TRACKED
        ignored = process.run([*_GIT, "-C", directory, "check-ignore", "-q", "--", leaf], timeout=_TIMEOUT)
    except ProcessError as error:
        return OUTSIDE if "cannot be run" in str(error) else str(error)
    return IGNORED if ignored.status == 0 else EXPOSED


def ignored_by(leaf: str) -> list[str]:
    """Return the lines of a .gitignore that cover a file, its stashes, locks and temporary files."""
    plain = "".join(f"\\{c}" if c in "\\*?[]!# " else c for c in leaf)
    return [plain, f".{plain}.*"]


def _in_tree(directory: str) -> bool:
    while not os.path.lexists(f"{directory}/.git"):
        if directory == "/":
            return False
        directory = os.path.dirname(directory)
    return True
