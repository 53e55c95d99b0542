"""The command line: only this package and extract print or exit."""

import ctypes
import sys
from importlib import import_module

import click

from tskeys import authkey
from tskeys.cli.app import App
from tskeys.errors import TskeysError

INTERRUPTED = 130

# Where each command is, and what the listing says of it: so that a listing imports none of them.
_COMMANDS = {
    "set": ("keys:set_key", "Store a key that is piped in, or asked for without an echo."),
    "get": ("read:get", "Print a key."),
    "list": ("read:list_keys", "Print the names of the keys."),
    "delete": ("keys:delete", "Delete a key from its store."),
    "rotate": ("rotate:rotate", "Replace keys, bring their consumers over, revoke the old ones."),
    "deliver": ("rotate:deliver", "Bring every consumer onto what the store holds."),
    "recover": ("rotate:recover", "Finish or undo what earlier runs left."),
    "revoke": ("rotate:revoke", "Replace a key and revoke the old one at once."),
    "migrate": ("migrate:migrate", "Move keys to another store."),
    "status": ("status:status", "Show each key: its ID, expiry, consumers, last rotation."),
    "extract": ("extract:extract", "Hand a key to a service as it starts."),
    "demo": ("demo:demo", "Show the life of a key on a control server of its own."),
}


class _Commands(click.Group):
    """Imports a command when it is called, so that `tskeys get` does not pay for the rest."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        module, _, attribute = _COMMANDS[name][0].partition(":")
        command: click.Command = getattr(import_module(f"tskeys.cli.{module}"), attribute)
        return command

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tskeys")
@click.option("--config", metavar="FILE", help="The config (default: /etc/tskeys/config.toml).")
@click.option("--store", metavar="STORE", help="A location, or the name of a [stores] table.")
@click.pass_context
def cli(context: click.Context, config: str | None, store: str | None) -> None:
    """Keep Tailscale auth keys where you trust them to be, renew them in time, hand them to services.

    \b
    Example: tskeys --store file:/etc/tailscale-keys set container-key
    """
    context.obj = App(config, store)


def main() -> int:
    """Run the command line; return its exit code."""
    # A core dump would hold keys: prctl(2), PR_SET_DUMPABLE.
    ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)
    try:
        status = cli.main(prog_name="tskeys", standalone_mode=False)
    except click.exceptions.Abort:
        _say("interrupted")
        return INTERRUPTED
    except click.ClickException as error:
        _say(authkey.redact(error.format_message()))
        if isinstance(error, click.UsageError) and error.ctx:
            _say(f"See {error.ctx.command_path} --help.")
        return error.exit_code
    except TskeysError as error:
        _say(authkey.redact(str(error)))
        if error.hint:
            _say(authkey.redact(error.hint))
        return error.exit_code
    except BrokenPipeError:
        sys.stdout = None  # its reader is gone: nothing is left to flush
        return 1
    return status if isinstance(status, int) else 0


def _say(text: str) -> None:
    for line in text.splitlines():
        click.echo(f"tskeys: {line}", err=True)
