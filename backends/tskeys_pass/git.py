"""Commit what changed in a store that is a git repository, with pass's own messages."""

import os
import time

from tskeys import process
from tskeys.errors import ProcessError, StoreError

_TIMEOUT = 60.0  # seconds; a hook of the user's may push
_PATIENCE = 5.0  # seconds that somebody else's git may keep the index


def directory(root: str, folder: str) -> str | None:
    """Return the git directory of the repository that a folder of the store is in, or None.

    As with pass, it starts at the store's root or below: a repository around the store is not its own.
    """
    while True:
        here = f"{root}/{folder}" if folder else root
        path = f"{here}/.git"
        if os.path.isdir(path):
            return path
        try:
            with open(path, encoding="utf-8", errors="surrogateescape") as link:  # gitrepository-layout(5)
                target = link.read(4096).strip().removeprefix("gitdir: ")
                return os.path.join(here, target)
        except OSError:
            pass
        if not folder:
            return None
        folder = folder.rpartition("/")[0]


class Repository:
    """The repository around one folder; paths are the names of files in it."""

    def __init__(self, root: str, folder: str, gnupghome: str | None) -> None:
        self._folder = f"{root}/{folder}" if folder else root
        while not os.path.isdir(self._folder):
            self._folder = os.path.dirname(self._folder)
        self._env = {
            **{k: v for k, v in os.environ.items() if k.startswith(("GIT_AUTHOR_", "GIT_COMMITTER_"))},
            **{k: os.environ[k] for k in ("EMAIL", "GPG_TTY", "XDG_CONFIG_HOME") if k in os.environ},
            "GIT_CEILING_DIRECTORIES": os.path.dirname(os.path.realpath(root)),
            "GIT_LITERAL_PATHSPECS": "1",
            "GIT_TERMINAL_PROMPT": "0",
            **({"GNUPGHOME": gnupghome} if gnupghome else {}),
        }

    def committed(self, leaf: str) -> bool:
        """Tell whether the last commit holds a file as it is now."""
        return bool(self._git("ls-files", "--", leaf)) and not self._git("status", "--porcelain", "--", leaf)

    def commit(self, leaves: list[str], message: str) -> None:
        """Commit these files and no others, whatever else is staged; nothing changed is no commit.

        Raises StoreError, and has staged nothing then.
        """
        changed = []
        for leaf in leaves:
            # Ignored files and such that git has never seen and are gone again are nothing to commit.
            state = self._git("status", "--porcelain", "--untracked-files=all", "--", leaf)
            if state.startswith("??"):
                self._patiently("add", "--", leaf)
            if state:
                changed.append(leaf)
        if not changed:
            return
        signed = ["-S"] if self._setting("pass.signcommits", "--bool") == "true" else []
        body = f"tskeys-write: {os.urandom(8).hex()}"
        try:
            self._patiently(
                *self._identity(),
                "commit",
                "--quiet",
                *signed,
                "-m",
                message,
                "-m",
                body,
                "--only",
                "--",
                *changed,
            )
        except StoreError:
            self._run("reset", "--quiet", "--", *changed)
            raise

    def _identity(self) -> list[str]:
        # A service has none, and git then refuses to commit.
        if {"EMAIL", "GIT_COMMITTER_EMAIL"} & set(self._env) or self._setting("user.email"):
            return []
        return ["-c", "user.name=tskeys", "-c", f"user.email=tskeys@{os.uname().nodename}"]

    def _setting(self, name: str, *how: str) -> str:
        return self._run("config", *how, "--get", name).output.reveal().decode(errors="replace").strip()

    def _patiently(self, *arguments: str) -> None:
        until = time.monotonic() + _PATIENCE
        while True:
            try:
                self._git(*arguments)
                return
            except StoreError as error:
                if "index.lock" not in str(error) or time.monotonic() > until:
                    raise
            time.sleep(0.1)

    def _git(self, *arguments: str) -> str:
        done = self._run(*arguments)
        if done.status:
            raise StoreError(
                f"git does not {next(a for a in arguments if a in _VERBS)} in {self._folder}: {done.errors}",
                hint=f"Nothing was changed. See: git -C {self._folder} status",
            )
        return done.output.reveal().decode(errors="replace")

    def _run(self, *arguments: str) -> process.Result:
        try:
            return process.run(["git", "-C", self._folder, *arguments], timeout=_TIMEOUT, env=self._env)
        except ProcessError as error:
            raise StoreError(
                f"{self._folder} is in a git repository: {error}", hint="Install git with: apt install git"
            ) from None


_VERBS = ("add", "commit", "ls-files", "status")
