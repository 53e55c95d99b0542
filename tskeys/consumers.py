"""Consumers: systemd units and bare delivery files. The only place that calls systemctl.

What systemctl says of a unit is not what it seems: a unit that dies every 0.4 s was `active` in 10 of 12
looks. Healthy therefore means active, with the same invocation and NRestarts for some seconds.
Properties: org.freedesktop.systemd1(5).
"""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass

from tskeys import authkey, deliver, delivery, process
from tskeys.config.types import DELIVER, RELOAD
from tskeys.errors import ProcessError, TskeysError, UsageError
from tskeys.secret import Secret

_SHOWN = (
    "LoadState,ActiveState,SubState,NRestarts,InvocationID,Job,Result,ReloadResult,Type,User,DynamicUser,UID,GID,"
    "ExecMainStartTimestamp"
)
_POLL = 0.2


@dataclass(frozen=True, slots=True)
class Target:
    """Where a consumer reads its key and whose file that is; `owner` None means the unit's own user."""

    to: str
    form: str = delivery.KEY
    owner: str | None = None
    group: str | None = None
    mode: int = 0o400
    root: str = delivery.ROOT
    allow_disk: bool = False

    def write(self, secret: Secret, uid: int, gid: int) -> None:
        """Write the delivery; a file that is there keeps its owner, group and mode."""
        mode = self.mode
        try:
            there = os.stat(self.to, follow_symlinks=False)
            uid, gid, mode = there.st_uid, there.st_gid, there.st_mode & 0o777
        except FileNotFoundError:
            pass
        delivery.write(
            self.to,
            secret,
            form=self.form,
            uid=uid,
            gid=gid,
            mode=mode,
            allow_disk=self.allow_disk,
            root=self.root,
            stamped=False,
        )

    def fingerprint(self) -> str | None:
        """Return the fingerprint of the key that is delivered now, or None where nothing is."""
        try:
            with open(self.to, "rb") as file:
                data = file.read(8192)
        except OSError:
            return None
        return authkey.fingerprint(data.removeprefix(b"TS_AUTHKEY=").rstrip(b"\n"))


class FileConsumer:
    """A delivery file that something reads by itself."""

    def __init__(self, target: Target) -> None:
        self.name = target.to
        self._target = target

    def baseline(self) -> str:
        """Return RUNNING: nothing is known of who reads the file."""
        return deliver.RUNNING

    def apply(self, secret: Secret, *, start: bool) -> deliver.Applied:
        """Write the file."""
        try:
            uid, gid = delivery.account(self._target.owner, self._target.group)
            self._target.write(secret, uid, gid)
        except TskeysError as error:
            return deliver.Applied(deliver.FAILED, reason=str(error))
        return deliver.Applied(deliver.DELIVERED)

    def observe(self) -> deliver.Observed:
        """Compare what lies there."""
        found = self._target.fingerprint()
        return deliver.Observed(running=found is not None, fingerprint=found)


class UnitConsumer:
    """A systemd unit; `stable` and `deadline` are in seconds."""

    def __init__(
        self, unit: str, target: Target, *, on_rotate: str = DELIVER, stable: float = 3, deadline: float = 90
    ) -> None:
        self.name = unit
        self._target = target
        self._on_rotate = on_rotate
        self._stable = stable
        self._deadline = deadline

    def baseline(self) -> str:
        """Look whether it runs and is healthy; that takes `stable` seconds where a restart is to come."""
        try:
            shown = self._show()
            if shown["ActiveState"] in ("inactive", "deactivating"):
                return deliver.STOPPED
            if self._on_rotate == DELIVER:
                return deliver.RUNNING
            problem = self._unhealthy("", self._stable + 5)
        except ProcessError:
            return deliver.SICK
        return deliver.SICK if problem else deliver.RUNNING

    def apply(self, secret: Secret, *, start: bool) -> deliver.Applied:
        """Write the delivery, restart or reload the unit if it runs, and wait until it is healthy.

        One that was handed this key as it started, by its own hook, is not touched if it is healthy.
        """
        wanted = authkey.fingerprint(secret.reveal())
        try:
            shown = self._show()
            runs = shown["ActiveState"] not in ("inactive", "deactivating", "failed")
            self._write(secret, shown, runs=runs)
            before = shown["InvocationID"]
            if self._on_rotate == DELIVER or not (runs or start):
                return deliver.Applied(deliver.DELIVERED, before)
            if runs and self._handed(before) == wanted:
                problem = self._unhealthy("", self._stable + 5)
                if not problem:
                    return deliver.Applied(deliver.RUNS, before)
            problem = self._refresh(shown, runs=runs)
            shown = self._show()
        except TskeysError as error:
            return deliver.Applied(deliver.FAILED, reason=str(error))
        invocation = shown["InvocationID"]
        if not problem and invocation != before and self._handed(invocation) not in (None, wanted):
            problem = f"{self.name} was handed another key as it started"
        if problem:
            return deliver.Applied(deliver.FAILED, invocation, problem)
        return deliver.Applied(deliver.RUNS, invocation)

    def observe(self) -> deliver.Observed:
        """Look at the unit, and at the stamp that its extractor left as it started."""
        try:
            shown = self._show()
        except ProcessError:
            return deliver.Observed(running=False, failed=True)
        running = shown["ActiveState"] not in ("inactive", "deactivating", "failed")
        invocation = shown["InvocationID"] if self._on_rotate != DELIVER else ""
        return deliver.Observed(
            running,
            failed=shown["ActiveState"] == "failed",
            fingerprint=self._handed(invocation) if invocation else self._target.fingerprint(),
            invocation=invocation,
            started=_seconds(shown["ExecMainStartTimestamp"]),
        )

    def _handed(self, invocation: str) -> str | None:
        """Return the fingerprint of the key that the extractor handed to an invocation of the unit."""
        stamp = delivery.stamp(self._target.to)
        return stamp.fingerprint if stamp and invocation and stamp.invocation == invocation else None

    def _write(self, secret: Secret, shown: Mapping[str, str], *, runs: bool) -> None:
        # A unit that is restarted gets its delivery from its own hook, or reads the store itself: what is
        # not there yet is not for us to make.
        if not os.path.lexists(self._target.to) and (self._on_rotate != DELIVER or not runs):
            return
        uid, gid = delivery.account(self._target.owner, self._target.group)
        if uid < 0:
            uid, gid = _user(shown) if self._target.form == delivery.KEY else (-1, gid)
        self._target.write(secret, uid, gid)

    def _refresh(self, shown: Mapping[str, str], *, runs: bool) -> str:
        """Restart or reload; return why it is not healthy, or an empty string."""
        if shown["LoadState"] != "loaded":
            return f"{self.name} is {shown['LoadState']}: systemd has no such unit that can run"
        if self._on_rotate == RELOAD and runs:
            _systemctl("--no-block", "reload", self.name)
            problem = self._unhealthy("", self._deadline)
            if not problem and (result := self._show()["ReloadResult"]) not in ("", "success"):
                return f"{self.name}: its reload ended with {result}"
            return problem
        # A service that died again and again has used up its start limit, and is not to stay down for that.
        _systemctl("reset-failed", self.name)
        # --no-block, since a unit ordered after the one that we run in would wait for us for ever.
        _systemctl("--no-block", "restart", self.name)
        return self._unhealthy(shown["InvocationID"], self._deadline)

    def _unhealthy(self, before: str, seconds: float) -> str:
        """Wait until the unit is healthy in another invocation than `before`; return why it is not."""
        end = time.monotonic() + seconds
        first: tuple[str, str] | None = None
        since = 0.0
        while time.monotonic() < end:
            shown = self._show()
            now = (shown["InvocationID"], shown["NRestarts"])
            if shown["Job"] in ("", "0") and now[0] != before:
                if first and now != first:
                    return f"{self.name} does not stay up: systemd restarts it again and again"
                if shown["ActiveState"] == "failed":
                    return f"{self.name} failed ({shown['Result']}); `journalctl -u {self.name}` says why"
                if shown["SubState"] == "auto-restart":
                    return f"{self.name} died ({shown['Result']}) and waits for its next start"
                if shown["ActiveState"] == "inactive":
                    finished = shown["Type"] == "oneshot" and shown["Result"] == "success"
                    return "" if finished else f"{self.name} has stopped"
                if shown["ActiveState"] == "active":
                    if first is None:
                        first, since = now, time.monotonic()
                    if time.monotonic() - since >= self._stable:
                        return ""
            time.sleep(_POLL)
        return f"{self.name} was not healthy within {seconds:g} s"

    def _show(self) -> dict[str, str]:
        result = process.run(
            ["systemctl", "show", "--no-pager", f"--property={_SHOWN}", "--", self.name], timeout=20
        )
        if result.status:
            raise ProcessError(f"systemctl: {result.errors}")
        shown = dict.fromkeys(_SHOWN.split(","), "")
        for line in result.output.reveal().decode(errors="replace").splitlines():
            name, _, value = line.partition("=")
            shown[name] = value
        return shown


def _systemctl(*arguments: str) -> None:
    result = process.run(["systemctl", *arguments], timeout=30)
    if result.status:
        raise ProcessError(f"systemctl {' '.join(arguments)}: {result.errors or f'status {result.status}'}")


def _user(shown: Mapping[str, str]) -> tuple[int, int]:
    # UID= is set while the unit runs, for DynamicUser= too; [not set] is how systemd prints none.
    if shown["UID"].isdecimal():
        return int(shown["UID"]), int(shown["GID"]) if shown["GID"].isdecimal() else -1
    try:
        return delivery.account(shown["User"] or None, None)
    except UsageError:
        return -1, -1


def _seconds(timestamp: str) -> float:
    """Return a timestamp of `systemctl show`, `Sat 2026-11-21 10:00:00 UTC`, in seconds since the epoch."""
    words = timestamp.split()
    if len(words) != 4:
        return 0.0
    return time.mktime(time.strptime(" ".join(words[1:3]), "%Y-%m-%d %H:%M:%S"))
