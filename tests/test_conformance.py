import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import broken_stores
import pytest

from tskeys.testing.conformance import KeyStoreConformance


class TestFileStore(KeyStoreConformance):
    @pytest.fixture
    def location(self, tmp_path: Path) -> str:
        tmp_path.chmod(0o700)
        return f"file:{tmp_path}"


class TestEnvFileStoreOfADirectory(KeyStoreConformance):
    @pytest.fixture
    def location(self, tmp_path: Path) -> str:
        tmp_path.chmod(0o700)
        return f"envfile:{tmp_path}/"


class OfAFile(KeyStoreConformance):
    def lose_root(self, location: str) -> bool:
        shutil.rmtree(Path(location.removeprefix("envfile:")).parent)
        return True


class TestEnvFileStoreOfAFile(OfAFile):
    names = ("TS_AUTHKEY", "OTHER_KEY", "THIRD")
    nested = False

    @pytest.fixture
    def location(self, tmp_path: Path) -> str:
        tmp_path.chmod(0o700)
        return f"envfile:{tmp_path}/settings"


class TestEnvFileStoreOfAVariable(OfAFile):
    single_key = True
    names = ("web",)
    nested = False

    @pytest.fixture
    def location(self, tmp_path: Path) -> str:
        tmp_path.chmod(0o700)
        return f"envfile:{tmp_path}/settings?var=JOIN_KEY"


# What a third party would write, once for each broken store.
SUITES = """
import broken_stores, pytest
from tskeys.testing.conformance import KeyStoreConformance

class Suite(KeyStoreConformance):
    @pytest.fixture
    def location(self, tmp_path):
        tmp_path.chmod(0o700)
        return f"file:{tmp_path}"

for broken in broken_stores.BROKEN:
    globals()[f"Test{broken.__name__}"] = type(f"Test{broken.__name__}", (Suite,), {"backend": broken})
"""


@pytest.fixture(scope="module")
def red(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Which of the tests that it should fail each broken store fails."""
    place = tmp_path_factory.mktemp("suites")
    (place / "test_suites.py").write_text(SUITES)
    path = os.pathsep.join([str(Path(broken_stores.__file__).parent), *sys.path])
    tests = [
        f"test_suites.py::Test{b.__name__}::{test}" for b in broken_stores.BROKEN for test in b.caught_by
    ]
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rfE", "--tb=no", "-p", "no:cacheprovider", *tests],
        cwd=place,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 1, ran.stdout + ran.stderr
    found: dict[str, set[str]] = {}
    for broken, test in re.findall(r"^FAILED test_suites\.py::Test(\w+)::(\w+)", ran.stdout, re.MULTILINE):
        found.setdefault(broken, set()).add(test)
    assert "ERROR" not in ran.stdout, ran.stdout
    return found


@pytest.mark.parametrize("broken", broken_stores.BROKEN, ids=lambda broken: broken.__name__)
def test_a_broken_store_fails(broken: type[broken_stores.Broken], red: dict[str, set[str]]) -> None:
    assert red.get(broken.__name__) == broken.caught_by


def test_every_test_of_the_suite_catches_something() -> None:
    tests = {name for name in dir(KeyStoreConformance) if name.startswith("test_")}
    assert tests == {test for broken in broken_stores.BROKEN for test in broken.caught_by}
