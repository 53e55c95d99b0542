"""Doing something for several keys: one failure does not stop the rest."""

from collections.abc import Callable, Iterable

import click

from tskeys import authkey
from tskeys.cli.progress import Progress
from tskeys.errors import TskeysError
from tskeys.name import KeyName

Key = KeyName | tuple[str, KeyName]
"""A key by its name alone, or together with the place of its store."""


def each(keys: Iterable[Key], work: Callable[[str | None, KeyName, Progress], int]) -> int:
    """Call `work` with place, name and progress of each key; return their common exit code, else 1."""
    codes = set()
    for key in keys:
        place, name = key if isinstance(key, tuple) else (None, key)
        progress = Progress(str(name))
        try:
            codes.add(work(place, name, progress))
        except TskeysError as error:
            progress.close()
            codes.add(error.exit_code)
            for text in (str(error), error.hint):
                if text:
                    click.echo(f"{name}: {authkey.redact(text)}", err=True)
        finally:
            progress.close()
    if not codes:
        click.echo("no key to work on", err=True)
    return codes.pop() if len(codes) == 1 else int(bool(codes))
