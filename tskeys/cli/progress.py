"""Progress on a terminal, for anything slower than a second; silence elsewhere."""

import sys
import time

import click


class Progress:
    """Show the step that a key is at."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._began = time.monotonic()
        self._shown = False

    def __call__(self, step: str) -> None:
        """Take note of a step that was done."""
        if sys.stderr.isatty() and time.monotonic() - self._began > 1:
            click.echo(f"\r\033[K{self._name}: {step} …", err=True, nl=False)
            self._shown = True

    def close(self) -> None:
        """Leave no trace on the terminal."""
        if self._shown:
            click.echo("\r\033[K", err=True, nl=False)
