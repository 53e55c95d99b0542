"""File backends with one mistake each; `caught_by` names the tests of the suite that must find it."""

import os
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import ClassVar, cast

from tskeys.errors import Conflict, KeyNotFound, StoreError, StoreUnavailable, UsageError
from tskeys.name import KeyName
from tskeys.secret import Secret
from tskeys.store import ABSENT, Location, Version
from tskeys_file import FileStore


class Broken(FileStore):
    caught_by: ClassVar[set[str]]

    def file(self, name: KeyName) -> Path:
        return Path(self._path, str(name))


class StaleGet(Broken):
    caught_by = {"test_put_replaces", "test_restore_brings_back_the_key_and_its_version"}

    def get(self, name: KeyName) -> Secret:
        cache = self.__dict__.setdefault("cache", {})
        return cast(Secret, cache.setdefault(name, super().get(name)))

    def put(
        self,
        name: KeyName,
        secret: Secret,
        *,
        expect: Version | None = None,
        expires: datetime | None = None,
    ) -> Version:
        self._write(name, name.leaf, secret.reveal(), expect)
        return Version.of(secret.reveal())


class NoneForAbsence(Broken):
    caught_by = {"test_absence_is_an_error_and_never_none", "test_delete"}

    def get(self, name: KeyName) -> Secret:
        try:
            return super().get(name)
        except KeyNotFound:
            return cast(Secret, None)


class AbsenceForBroken(Broken):
    caught_by = {"test_a_root_that_goes_away_is_unavailable_and_never_empty"}

    def _missing(self, name: KeyName) -> KeyNotFound:
        return KeyNotFound("no key")


class EmptyForMissing(Broken):
    caught_by = {"test_a_missing_root_is_unavailable_and_never_empty"}

    @classmethod
    def open(cls, location: Location) -> "EmptyForMissing":
        os.makedirs(location.path, mode=0o700, exist_ok=True)
        return cast(EmptyForMissing, super().open(location))


class RawErrors(Broken):
    caught_by = {"test_absence_is_an_error_and_never_none", "test_errors_are_of_the_tree_and_tell_no_key"}

    def _explained(self, error: OSError, name: KeyName) -> StoreError | UsageError:
        raise error


class TellsTheKey(Broken):
    caught_by = {"test_errors_are_of_the_tree_and_tell_no_key"}

    def put(
        self,
        name: KeyName,
        secret: Secret,
        *,
        expect: Version | None = None,
        expires: datetime | None = None,
    ) -> Version:
        try:
            return super().put(name, secret, expect=expect)
        except StoreError as error:
            raise type(error)(f"could not store {secret.reveal()!r}") from None


class HoldsTheKey(Broken):
    caught_by = {"test_a_store_tells_no_key"}

    def get(self, name: KeyName) -> Secret:
        secret = super().get(name)
        self.last = secret.reveal()
        return secret


class NoExpectation(Broken):
    caught_by = {
        "test_put_with_a_wrong_version_changes_nothing",
        "test_restore_with_a_wrong_version_changes_nothing",
        "test_one_of_two_who_expect_the_same_wins",
    }

    def _write(self, name: KeyName, leaf: str, data: bytes, expect: Version | None) -> None:
        super()._write(name, leaf, data, None)


class AbsentIsIgnored(Broken):
    caught_by = {"test_put_with_a_wrong_version_changes_nothing"}

    def _write(self, name: KeyName, leaf: str, data: bytes, expect: Version | None) -> None:
        super()._write(name, leaf, data, None if expect == ABSENT else expect)


class ChecksAfterWriting(Broken):
    caught_by = {"test_put_with_a_wrong_version_changes_nothing"}

    def _write(self, name: KeyName, leaf: str, data: bytes, expect: Version | None) -> None:
        before = self.version(name) or ABSENT
        super()._write(name, leaf, data, None)
        if expect is not None and before != expect:
            raise Conflict("changed")


class WritesInPlace(Broken):
    caught_by = {
        "test_a_reader_sees_one_key_or_the_other",
        "test_a_killed_writer_leaves_one_key_or_the_other",
    }

    def _write(self, name: KeyName, leaf: str, data: bytes, expect: Version | None) -> None:
        super()._write(name, leaf, data, expect)
        with open(Path(self._path, name.sibling(leaf)), "wb", buffering=0) as file:
            file.write(data[:20])
            time.sleep(0.01)
            file.write(data[20:])


class RemovesFirst(Broken):
    caught_by = {
        "test_a_reader_sees_one_key_or_the_other",
        "test_a_killed_writer_leaves_one_key_or_the_other",
    }

    def _write(self, name: KeyName, leaf: str, data: bytes, expect: Version | None) -> None:
        self.file(name).unlink(missing_ok=True)
        time.sleep(0.01)
        super()._write(name, leaf, data, expect)


class OneTemporaryName(Broken):
    caught_by = {"test_what_a_killed_run_left_is_in_nobodys_way"}

    def _write(self, name: KeyName, leaf: str, data: bytes, expect: Version | None) -> None:
        temporary = Path(self._path, name.sibling(f".{leaf}.tmp"))
        try:
            os.close(os.open(temporary, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            raise StoreUnavailable("somebody else is writing") from None
        super()._write(name, leaf, data, expect)


class ForeignVersion(Broken):
    caught_by = {"test_version", "test_put_with_the_right_version"}

    def put(
        self,
        name: KeyName,
        secret: Secret,
        *,
        expect: Version | None = None,
        expires: datetime | None = None,
    ) -> Version:
        super().put(name, secret, expect=expect)
        return Version.of(secret.reveal()[:4])


class ConstantVersion(Broken):
    caught_by = {"test_version", "test_put_with_a_wrong_version_changes_nothing"}

    def version(self, name: KeyName) -> Version | None:
        return Version.of(b"") if super().version(name) else None


class VersionOfThisProcess(Broken):
    caught_by = {"test_version"}

    def version(self, name: KeyName) -> Version | None:
        version = super().version(name)
        return version and Version(f"{version}-{id(self)}")


class VersionMovesOnGet(Broken):
    caught_by = {"test_version"}

    def get(self, name: KeyName) -> Secret:
        self.gets = self.__dict__.get("gets", 0) + 1
        return super().get(name)

    def version(self, name: KeyName) -> Version | None:
        version = super().version(name)
        return version and Version(f"{version}{'.' * self.__dict__.get('gets', 0)}")


class Trims(Broken):
    caught_by = {"test_every_form_of_key_comes_back_byte_for_byte"}

    def get(self, name: KeyName) -> Secret:
        return Secret(super().get(name).reveal().partition(b"?")[0])


class Unsorted(Broken):
    caught_by = {"test_names_are_kept_apart_and_listed_in_order"}

    def names(self) -> Iterator[KeyName]:
        yield from reversed(list(super().names()))


class ListsEverything(Broken):
    caught_by = {
        "test_a_stash_is_not_listed",
        "test_names_are_kept_apart_and_listed_in_order",
        "test_what_a_killed_run_left_is_in_nobodys_way",
    }

    def names(self) -> Iterator[KeyName]:
        hidden = [entry.lstrip(".").replace("+", "_") for entry in os.listdir(self._path) if entry[0] == "."]
        yield from sorted({*super().names(), *map(KeyName, hidden)})


class DeleteIsQuiet(Broken):
    caught_by = {"test_absence_is_an_error_and_never_none", "test_delete"}

    def delete(self, name: KeyName) -> None:
        try:
            super().delete(name)
        except KeyNotFound:
            pass


class DeleteLeavesTheStash(Broken):
    caught_by = {"test_delete_takes_the_stash_along"}

    def delete(self, name: KeyName) -> None:
        self._remove(name, name.leaf)


class RestoreTakesTheStash(Broken):
    caught_by = {"test_restore_brings_back_the_key_and_its_version"}

    def restore(self, name: KeyName, *, expect: Version | None = None) -> Version:
        version = super().restore(name, expect=expect)
        self.forget(name)
        return version


class StashInMemory(Broken):
    caught_by = {"test_restore_brings_back_the_key_and_its_version"}

    def stash(self, name: KeyName) -> None:
        self.kept = self._read(name, name.leaf)

    def restore(self, name: KeyName, *, expect: Version | None = None) -> Version:
        return self.put(name, Secret(self.kept), expect=expect)


class ForgetsNothing(Broken):
    caught_by = {"test_there_is_no_stash_before_stashing_and_after_forgetting"}

    def forget(self, name: KeyName) -> None:
        pass


class OneFileForAll(Broken):
    caught_by = {"test_names_are_kept_apart_and_listed_in_order"}

    def _read(self, name: KeyName, leaf: str) -> bytes:
        return super()._read(KeyName("all"), leaf if leaf.startswith(".") else "all")

    def _write(self, name: KeyName, leaf: str, data: bytes, expect: Version | None) -> None:
        super()._write(KeyName("all"), leaf if leaf.startswith(".") else "all", data, expect)


class LosesThePrefix(Broken):
    caught_by = {"test_a_name_that_begins_another_is_refused_or_works"}

    def _write(self, name: KeyName, leaf: str, data: bytes, expect: Version | None) -> None:
        if name.parent and self.file(KeyName(name.parent)).is_file():
            self.file(KeyName(name.parent)).unlink()
        super()._write(name, leaf, data, expect)


class AnyOption(Broken):
    caught_by = {"test_an_unknown_option_is_a_usage_error"}

    @classmethod
    def open(cls, location: Location) -> "AnyOption":
        return cast(AnyOption, super().open(Location(f"file:{location.path}")))


class OneLockForAll(Broken):
    caught_by = {"test_the_lock_is_beside_the_store_or_nowhere"}

    def lock_path(self, name: KeyName) -> str:
        return f"{self._path}/.lock"


BROKEN = Broken.__subclasses__()
