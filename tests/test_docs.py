"""The README knows every command, option, setting, exit status and module, and no other."""

import re
import tomllib
from pathlib import Path

import click
import pytest

from sapd import cli, config, errors, formats
from tests.folders import PACKAGE, ROOT

README = (ROOT / "README.md").read_text()


def section(title: str) -> str:
    return README.split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_commands_and_options() -> None:
    text = section("Commands")
    assert isinstance(cli.sapd, click.Group)
    assert set(re.findall(r"`sapd (\w+)", text)) == set(cli.sapd.commands)
    options = {
        option
        for command in cli.sapd.commands.values()
        for parameter in command.params
        if isinstance(parameter, click.Option)
        for option in parameter.opts
    }
    for option in options | {"-h", "--help"}:
        assert re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", text), option
    for option in re.findall(r"(?<![\w-])(--[a-z][a-z-]*)", text):
        assert option in options | {"--help"}


def known_settings(tmp_path: Path, table: str) -> set[str]:
    """What a table may hold, as the program says when it meets an unknown setting."""
    path = tmp_path / "sapd.toml"
    log = '[[log]]\npath = "x"\n'
    head = {"": "", "log": log, "network": log + "[[network]]\n"}
    path.write_text(head.get(table, f"{log}[{table}]\n") + "zzzzzz = 1\n")
    with pytest.raises(errors.SapdError, match="zzzzzz is no setting; known are ") as raised:
        config.load(str(path))
    return set(raised.value.reason.split("known are ")[1].split(", "))


TABLES = ["log", "access", "state", "network", "policy", "audit"]


def test_settings(tmp_path: Path) -> None:
    known = {table: known_settings(tmp_path, table) for table in TABLES}
    assert known_settings(tmp_path, "") == {"window", "formats_directory", *TABLES}
    documented: dict[str, set[str]] = {"": set()}
    table = ""
    for name in re.findall(r"^\| `([^`]+)` \|", section("Settings"), re.MULTILINE):
        if name.startswith("["):
            table = name.strip("[]")
            documented[table] = set()
        else:
            documented[table].add(name)
    assert documented == {"": {"window", "formats_directory"}, **known}


def test_the_example_shows_every_setting(tmp_path: Path) -> None:
    text = (ROOT / "examples" / "sapd.toml").read_text()
    shown = tomllib.loads(re.sub(r"(?m)^#(?=[\[a-z])", "", text))
    for table in TABLES:
        value = shown[table]
        rows = value if isinstance(value, list) else [value]
        assert {key for row in rows for key in row} == known_settings(tmp_path, table), table


def test_exit_statuses() -> None:
    known = {value for name, value in vars(errors).items() if name.isupper() and name[0] != "_"}
    rows = re.findall(r"^\| ([\d, ]+) \|", section("Exit status"), re.MULTILINE)
    documented = {int(number) for row in rows for number in row.split(",")}
    assert documented == known | {0, 2}


def test_modules_and_formats() -> None:
    rows = re.findall(r"^\| (`\w+`.*?) \|", section("How it works"), re.MULTILINE)
    named = set(re.findall(r"`(\w+)`", "".join(rows)))
    modules = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "__main__"}
    modules |= {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert named == modules
    documented = re.findall(r"^\| `([\w-]+)` \|", section("Formats"), re.MULTILINE)
    assert sorted(documented) == formats.names()


def test_the_format_of_ones_own_works(tmp_path: Path) -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", section("Formats"), re.DOTALL)
    (tmp_path / "ourpop.toml").write_text(example)
    assert formats.load("ourpop", str(tmp_path)).lines[0].event == "login"


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        root = PACKAGE.parent if target.startswith("sapd/") else ROOT
        assert (root / target).exists(), target
    heads = re.findall(r"^##+ (.*)$", README, re.MULTILINE)
    for anchor in re.findall(r"\]\(#([^)]+)\)", README):
        assert anchor in {head.lower().replace(" ", "-") for head in heads}
