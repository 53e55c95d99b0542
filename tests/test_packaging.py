"""What is built is what gets installed: the sdist and the wheel, and the command line run from the wheel."""

import configparser
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tskeys.registry import BUILTIN

ROOT = Path(__file__).parent.parent
PACKAGES = ("tskeys", *sorted(path.parent.name for path in ROOT.glob("backends/*/__init__.py")))


def run(*command: str | Path, env: dict[str, str] | None = None) -> str:
    """Run a program that must succeed; return what it said."""
    done = subprocess.run(
        command,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **(env or {})},
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with the sdist and the wheel that was built from it."""
    directory = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", directory, ROOT)
    return directory


@pytest.fixture(scope="module")
def wheel(dist: Path) -> dict[str, str]:
    """Return the wheel's files."""
    (found,) = dist.glob("*.whl")
    with zipfile.ZipFile(found) as archive:
        return {name: archive.read(name).decode() for name in archive.namelist()}


@pytest.fixture(scope="module")
def in_sdist(dist: Path) -> set[str]:
    (found,) = dist.glob("*.tar.gz")
    with tarfile.open(found) as archive:
        return {name.partition("/")[2] for name in archive.getnames()}


def sources() -> set[str]:
    """Return every module of ours, as a wheel should have it."""
    roots = (ROOT / "tskeys", *(ROOT / "backends" / package for package in PACKAGES[1:]))
    return {str(path.relative_to(root.parent)) for root in roots for path in root.rglob("*.py")}


def only(wheel: dict[str, str], ending: str) -> str:
    """Return the one file whose name ends so."""
    (found,) = [text for name, text in wheel.items() if name.endswith(ending)]
    return found


def test_the_wheel_has_every_module_and_nothing_else(wheel: dict[str, str]) -> None:
    assert {name for name in wheel if name.endswith(".py")} == sources()
    tops = {name.partition("/")[0] for name in wheel}
    assert {top for top in tops if not re.fullmatch(r"tskeys-[^-]+\.(dist-info|data)", top)} == set(PACKAGES)


def test_the_wheel_is_typed(wheel: dict[str, str]) -> None:
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(wheel)


def test_the_wheel_has_the_extractor_as_a_plain_script(wheel: dict[str, str]) -> None:
    # pip puts the interpreter into a first line that says just this.
    assert only(wheel, ".data/scripts/tskeys-extract").startswith("#!python\n")


def test_the_wheel_says_what_it_offers(wheel: dict[str, str]) -> None:
    parser = configparser.ConfigParser(delimiters="=")
    parser.read_string(only(wheel, ".dist-info/entry_points.txt"))
    assert dict(parser["tskeys.backends"]) == BUILTIN
    assert dict(parser["console_scripts"]) == {"tskeys": "tskeys.cli:main"}
    assert only(wheel, ".dist-info/licenses/LICENSE")


def test_the_sdist_has_what_a_packager_needs(in_sdist: set[str]) -> None:
    for file in (
        *("pyproject.toml", "README.md", "CHANGELOG.md", "SECURITY.md", "LICENSE", ".ci/run"),
        *("scripts/bootstrap.sh", "scripts/demo", "scripts/test", "scripts/tskeys-extract"),
    ):
        assert file in in_sdist
    for directory in ("systemd", "nix", "tests", "benchmarks"):
        assert any(name.startswith(f"{directory}/") for name in in_sdist), directory
    assert {f"tests/{path.name}" for path in (ROOT / "tests").glob("*.py")} <= in_sdist
    assert not [name for name in in_sdist if re.search(r"__pycache__|(^|/)\.venv|_cache/", name)]


def test_the_command_line_works_from_the_wheel(dist: Path, tmp_path: Path) -> None:
    (wheel,) = dist.glob("*.whl")
    run(sys.executable, "-m", "venv", tmp_path / "venv")
    programs = tmp_path / "venv" / "bin"
    run(programs / "python", "-m", "pip", "install", "-q", f"{wheel}[all]")
    assert str(ROOT) not in run(programs / "python", "-I", "-c", "import tskeys; print(tskeys.__file__)")
    tests = sorted((ROOT / "tests").glob("test_cli*.py"))
    said = run(
        *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--basetemp", tmp_path / "tests"),
        *tests,
        env={"TSKEYS_TEST_BIN": str(programs)},
    )
    closing = said.rstrip().splitlines()[-1]
    assert re.search(r"\d+ passed", closing)
    assert "skipped" not in closing or not os.environ.get("CI")
