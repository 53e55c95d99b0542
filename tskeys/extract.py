"""Hand a key to a service as it starts: `ExecStartPre=+… tskeys-extract NAME --to PATH`.

Runs at every service start and as root, so it uses the standard library only, imports as little of that as
it can (tests hold the list) and runs no third party's code: built-in backends alone.
"""

import os
import sys

from tskeys import authkey, delivery, registry
from tskeys.errors import KeyNotFound, StoreUnavailable, TskeysError, UsageError
from tskeys.name import KeyName
from tskeys.store import Location

USAGE = """\
Usage: tskeys-extract NAME --to PATH [OPTION…]

Take a key from its store and write it where a starting service reads it.

  --store LOCATION   the store (default: $TSKEYS_STORE, else file:/etc/tailscale-keys)
  --format key|env   the key alone, or TS_AUTHKEY=… for EnvironmentFile=
  --owner USER       who may read it (default: the caller)
  --group GROUP      its group (default: the owner's)
  --mode OCTAL       its mode (default: 0400)
  --timeout S        seconds before it gives up (default: 20)
  --optional         exit 0 without writing anything when there is no such key
  --keep-last        when the store cannot be read, keep what was delivered before and exit 0
  --allow-disk       deliver outside tmpfs too

Example, in a unit's drop-in:
  ExecStartPre=+/opt/tskeys/bin/python -I -m tskeys.extract web --to /run/tskeys/web/authkey --owner web
"""
DEFAULT_STORE = "file:/etc/tailscale-keys"

_VALUES = ("--to", "--store", "--format", "--owner", "--group", "--mode", "--timeout")
_FLAGS = ("--optional", "--keep-last", "--allow-disk")


def parse(arguments: list[str]) -> tuple[KeyName, dict[str, str]]:
    """Return the key name and the options; flags stand there as an empty string. Raises UsageError."""
    options: dict[str, str] = {}
    names = []
    rest = iter(arguments)
    for argument in rest:
        option, equals, value = argument.partition("=")
        if argument in _FLAGS:
            options[argument] = ""
        elif option in _VALUES:
            given = value if equals else next(rest, None)
            if given is None:
                raise UsageError(f"{option} needs a value", hint="See tskeys-extract --help.")
            options[option] = given
        elif argument.startswith("-"):
            raise UsageError(
                f"no such option: {argument.partition('=')[0]}", hint="See tskeys-extract --help."
            )
        else:
            names.append(argument)
    if len(names) != 1 or not options.get("--to", "").startswith("/"):
        raise UsageError(
            "one NAME and --to with an absolute path are needed", hint="See tskeys-extract --help."
        )
    return KeyName(names[0]), options


def extract(name: KeyName, options: dict[str, str]) -> str:
    """Deliver a key as the options say; return a warning or an empty string."""
    to = options["--to"]
    form = options.get("--format", delivery.KEY)
    if form not in (delivery.KEY, delivery.ENV):
        raise UsageError(f"--format is key or env, not {form!r}")
    try:
        mode = int(options.get("--mode", "0400"), 8)
        seconds = float(options.get("--timeout", "20"))
    except ValueError:
        raise UsageError("--mode is an octal number and --timeout a number of seconds") from None
    if mode & ~0o770 or not 0 < seconds <= 86400:
        raise UsageError(
            "--mode lets nobody else in (at most 0770) and --timeout is above 0 s, at most a day"
        )
    uid, gid = delivery.account(options.get("--owner"), options.get("--group"))
    location = options.get("--store") or os.environ.get("TSKEYS_STORE") or DEFAULT_STORE
    _deadline(seconds)
    try:
        secret = registry.open_store(Location(location), plugins=False).get(name)
    except KeyNotFound:
        if "--optional" not in options:
            raise
        return f"{location} holds no key {name}: the service starts without one"
    except TskeysError as error:
        if "--keep-last" in options and not isinstance(error, UsageError) and os.path.isfile(to):
            return f"{error}; the key delivered before stays"
        raise
    finally:
        _deadline(0)
    delivery.write(
        to,
        secret,
        form=form,
        uid=uid,
        gid=gid,
        mode=mode,
        invocation=os.environ.get("INVOCATION_ID", ""),
        allow_disk="--allow-disk" in options,
    )
    return ""


def _deadline(seconds: float) -> None:
    # The module `signal` wraps this one in enums, which cost more than everything else here.
    import _signal  # type: ignore[import-not-found]

    def late(signum: int, frame: object) -> None:
        raise StoreUnavailable(
            "the store did not answer in time",
            hint="Is something waiting for a PIN? --timeout sets the limit.",
        )

    _signal.signal(_signal.SIGALRM, late)
    _signal.setitimer(_signal.ITIMER_REAL, seconds)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    if "--help" in given or "-h" in given:
        print(USAGE, end="")
        return 0
    try:
        name, options = parse(given)
        warning = extract(name, options)
    except TskeysError as error:
        for text in filter(None, (str(error), error.hint)):
            print(f"tskeys-extract: {authkey.redact(text)}", file=sys.stderr)
        return error.exit_code
    if warning:
        print(f"tskeys-extract: warning: {warning}", file=sys.stderr)
    return 0


def run() -> None:
    """Run the command and leave at once: tearing an interpreter down takes as long as all of its imports."""
    import resource

    # A core dump would hold the key. The kernel starts no handler for a limit of 1, for 0 it does (core(5)).
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (min(1, most) if most >= 0 else 1, most))
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    run()
