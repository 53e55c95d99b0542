"""The README and the docs say what the program does."""

import re
import tomllib
from pathlib import Path

from tskeys import config, errors
from tskeys.cli import _COMMANDS
from tskeys.config import consumers, tables

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_config_of_the_readme_loads(tmp_path: Path) -> None:
    (text,) = blocks("toml")
    path = tmp_path / "config.toml"
    path.write_text(text)

    loaded = config.load(str(path), {})

    assert [str(name) for name in loaded.keys] == ["container-key"]
    assert tomllib.loads(text)["keys"]["container-key"]["tags"] == ["tag:container"]


def test_every_command_is_in_the_readme_and_the_other_way_round() -> None:
    table = README.partition("## Every day")[2].partition("`--store` takes")[0]
    told = set(re.findall(r"`tskeys ([a-z]+)", table))

    assert told == set(_COMMANDS) - {"extract", "demo"}
    assert set(re.findall(r"tskeys ([a-z]+) ", "\n".join(blocks("sh")))) <= set(_COMMANDS)


def test_the_exit_codes_of_the_readme_are_those_of_the_errors() -> None:
    table = README.partition("## Exit codes")[2].partition("##")[0]
    told = {int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)}
    raised = {
        error.exit_code
        for error in vars(errors).values()
        if isinstance(error, type) and issubclass(error, errors.TskeysError)
    }

    assert told == raised | {0, 130}


def test_every_key_of_the_config_is_in_its_docs() -> None:
    docs = (ROOT / "docs/config.md").read_text()
    words = {*tables.TOP, *tables._ISSUER, *tables._CREDENTIAL, *tables._KEY, *consumers._CONSUMER}

    assert {word for word in words if not re.search(rf"\b{word}\b", docs)} == set()
