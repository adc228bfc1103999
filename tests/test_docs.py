"""The README and the manual pages know what the program knows, and no more."""

import re
import subprocess
import tomllib
from collections.abc import Mapping
from pathlib import Path

import click
import pytest

from sapd import cli, config, errors
from sapd.events import formats
from tests import setup
from tests.folders import PACKAGE, ROOT

README = (ROOT / "README.md").read_text()
INNER = (PACKAGE / "README.md").read_text()
PAGES = sorted((PACKAGE / "man").iterdir())


class Page:
    """A manual page as plain text, in sections; a term stands in a line that begins with a tab."""

    def __init__(self, name: str) -> None:
        text = (PACKAGE / "man" / name).read_text()
        text = re.sub(r"(?m)^\.TP\n", "\t", text)
        text = re.sub(r"\\f[BIR]|\\&|^\.\\\".*\n", "", text, flags=re.MULTILINE)
        for code, char in {
            r"\-": "-",
            r"\(aq": "'",
            r"\(ti": "~",
            r"\(ha": "^",
            r"\e": "\\",
        }.items():
            text = text.replace(code, char)
        self.text = text

    def section(self, title: str) -> str:
        return re.split(r"(?m)^\.SH .*\n", self.text.split(f"\n.SH {title}\n")[1])[0]

    def parts(self, title: str) -> dict[str, str]:
        """The subsections; what stands before the first has no name."""
        head, *rest = re.split(r"(?m)^\.SS (.*)\n", self.section(title))
        return {"": head, **dict(zip(rest[::2], rest[1::2], strict=True))}


def terms(text: str) -> list[str]:
    return re.findall(r"(?m)^\t(.*)$", text)


def options_of(text: str) -> set[str]:
    return {
        word
        for term in terms(text)
        for word in re.findall(r"(?<![\w-])(--?[a-z][a-z-]*)(?![\w-])", term)
    }


COMMANDS = Page("sapd.8")
SETTINGS = Page("sapd.toml.5")


def program() -> Mapping[str, click.Command]:
    assert isinstance(cli.sapd, click.Group)
    return cli.sapd.commands


def known_options(command: click.Command) -> set[str]:
    return {
        option
        for parameter in command.params
        if isinstance(parameter, click.Option)
        for option in parameter.opts
    }


def test_commands() -> None:
    named = [term.split()[0] for term in terms(COMMANDS.section("COMMANDS"))]
    assert sorted(named) == sorted(program())


def test_options() -> None:
    documented = {name: options_of(text) for name, text in COMMANDS.parts("OPTIONS").items()}
    common = documented.pop("") - {"-h", "--help", "-vv"}
    for name, command in program().items():
        own = known_options(command) - {"--version"}
        assert documented.pop(name, set()) | (common & own) == own, name
    assert documented == {}


def test_the_readme_names_only_what_is_there() -> None:
    known = program()
    for name in set(re.findall(r"`(?:sudo )?sapd (\w+)|^sapd (\w+)", README, re.MULTILINE)):
        assert "".join(name) in known
    options = {option for command in known.values() for option in known_options(command)}
    for line in re.findall(r"(?:`|^)sapd \w+ ([^`\n]*)", README, re.MULTILINE):
        for option in re.findall(r"(?<![\w-])(--?[a-z][a-z-]*)", line):
            assert option in options, line


def known_settings(tmp_path: Path, table: str) -> set[str]:
    """What a table may hold, as the program says when it meets an unknown setting."""
    path = tmp_path / "sapd.toml"
    log = '[[log]]\npath = "x"\n'
    head = {"": "", "log": log, "network": log + "[[network]]\n"}
    path.write_text(head.get(table, f"{log}[{table}]\n") + "zzzzzz = 1\n")
    with pytest.raises(config.Mistake) as raised:
        config.load(str(path))
    told = [mistake.reason for mistake in (raised.value, *raised.value.others)]
    [known] = [text for text in told if "zzzzzz is not a setting; known are " in text]
    return set(known.split("known are ")[1].split(", "))


TABLES = ["log", "access", "state", "network", "policy", "audit"]


def test_settings(tmp_path: Path) -> None:
    documented = {
        name.strip("[]"): set(terms(text)) for name, text in SETTINGS.parts("SETTINGS").items()
    }
    assert documented.pop("") == set()
    top = documented.pop("At the top")
    assert top | set(TABLES) == known_settings(tmp_path, "")
    of_others = {"table", "builder"}  # refused with sendmail
    documented["access"] -= of_others
    assert documented == {table: known_settings(tmp_path, table) for table in TABLES}


def test_the_readme_names_only_settings_that_are_there(tmp_path: Path) -> None:
    known = {name for table in TABLES for name in known_settings(tmp_path, table)}
    for name in re.findall(r"`([a-z]+_[a-z_]+)`", README):
        assert name in known | {"log_path", "check_client_access"}, name


def test_the_example_shows_every_setting(tmp_path: Path) -> None:
    text = (ROOT / "examples" / "sapd.toml").read_text()
    shown = tomllib.loads(re.sub(r"(?m)^#(?=[\[a-z])", "", text))
    for table in TABLES:
        value = shown[table]
        rows = value if isinstance(value, list) else [value]
        assert {key for row in rows for key in row} == known_settings(tmp_path, table), table


def test_exit_statuses() -> None:
    known = {value for name, value in vars(errors).items() if name.isupper() and name[0] != "_"}
    documented = [int(term) for term in terms(COMMANDS.section("EXIT STATUS"))]
    assert sorted(documented) == sorted(known | {0, 2})


def test_formats() -> None:
    assert terms(SETTINGS.section("FORMATS")) == formats.names()


def test_the_keys_of_a_format() -> None:
    documented = [
        key for term in terms(SETTINGS.section("FORMATS OF ONE'S OWN")) for key in term.split(", ")
    ]
    known = [key for key in formats._KEYS if key != "line"]
    assert sorted(documented) == sorted([*known, *formats._LINE_KEYS])


def test_the_format_of_ones_own_works(tmp_path: Path) -> None:
    [example] = re.findall(r"\.EX\n(.*?)\.EE", SETTINGS.section("FORMATS OF ONE'S OWN"), re.DOTALL)
    (tmp_path / "ourpop.toml").write_text(example)
    assert formats.load("ourpop", str(tmp_path)).lines[0].event == "login"


def test_the_modules() -> None:
    table = INNER.split("| module |")[1].split("\n\n")[0]
    rows = re.findall(r"^\| (`\w+`.*?) \|", table, re.MULTILINE)
    named = set(re.findall(r"`(\w+)`", "".join(rows)))
    modules = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "__main__"}
    modules |= {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    for package in ("reading", "events"):
        modules |= {path.stem for path in (PACKAGE / package).glob("*.py")} - {"__init__"}
    assert named == modules


def test_paths_lead_somewhere() -> None:
    """The README is shown by package indexes, too, where a link into the checkout is broken."""
    assert "](" not in README
    for path in re.findall(r"(?<![\w/])(?:cron|examples|sapd|tests)/[\w./-]+\w", README):
        root = PACKAGE.parent if path.startswith("sapd/") else ROOT
        assert (root / path).exists(), path


def test_what_the_set_up_test_pastes_is_there() -> None:
    script = (ROOT / "tests" / "setup.py").read_text()
    for heading in ["Mail server: sendmail", "Mail server: Postfix",
                    *re.findall(r'paste(?:d)?\("([^"{]+)"', script)]:  # fmt: skip
        assert setup.pasted(heading).strip(), heading


def test_the_readme_is_short() -> None:
    assert README.count("\n") <= 200
    assert README.rstrip().splitlines()[-1].startswith("No licence is chosen")


def test_what_must_stay_in_the_readme() -> None:
    text = " ".join(README.split())
    assert "a login in the second of a `sapd close` does not count" in text
    assert '`bob@default.example` for bob: write `"bob@*"` beside `"bob"`' in text


@pytest.mark.servers
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_manual_pages_are_sound(page: Path) -> None:
    assert page.read_text().isascii()
    lint = subprocess.run(
        ["mandoc", "-T", "lint", "-W", "style", page], capture_output=True, text=True, check=False
    )
    assert (lint.returncode, lint.stdout) == (0, "")
    shown = subprocess.run(
        ["man", "--warnings", "-l", "-Tutf8", "-Z", page],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (shown.returncode, shown.stderr) == (0, "")
