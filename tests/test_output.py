"""Output that can't be written, or that nobody reads, from every command, on both streams."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import pytest

from sapd import cli
from tests.site import Site, login


class Said(NamedTuple):
    status: int
    out: str
    err: str


SAPD = [sys.executable, "-m", "sapd"]
FULL, CLOSED, PIPE = "/dev/full", "closed", "a pipe that nobody reads"
REASONS = {FULL: "No space left on device", CLOSED: "Bad file descriptor"}

COMMANDS = {
    "help": (["--help"], 0),
    "help of a command": (["list", "--help"], 0),
    "version": (["--version"], 0),
    "usage": (["rum"], 2),
    "list": (["list", "-c", "{config}"], 0),
    "list, without a configuration": (["list", "-c", "{config}.absent"], 78),
    "list as JSON": (["list", "--json", "-c", "{config}"], 0),
    "who": (["who", "-c", "{config}", "192.0.2.10"], 0),
    "match": (["match", "-c", "{config}", "{log}"], 0),
    "match as JSON": (["match", "--json", "--explain", "-c", "{config}", "{log}"], 0),
    "match, of a file that is absent": (["match", "-c", "{config}", "{log}.absent"], 66),
    "init of one file": (["init", "--cron"], 0),
}
WITH_MAKEMAP = {
    "run, with a warning": (["run", "-c", "{config}"], 0),
    "run, with a warning, said": (["run", "-v", "-c", "{config}"], 0),
    "run, without a log": (["run", "-c", "{broken}"], 66),
    "run repeated": (["run", "-v", "--for", "1s", "--every", "1s", "-c", "{config}"], 0),
    "dry run": (["run", "-n", "-c", "{config}"], 0),
    "close": (["close", "-c", "{config}", "192.0.2.10"], 0),
    "check": (["check", "-c", "{broken}"], 66),
}


class Commands:
    """Runs a command again and again from where nothing was run before."""

    def __init__(self, site: Site) -> None:
        self.site = site
        site.source.write_text("Connect:203.0.113.9\tREJECT\n")
        site.write(login("192.0.2.10"), login("203.0.113.9"))
        broken = site.folder / "broken.toml"
        broken.write_text(site.config.read_text().replace("qpopper", "gone"))
        self.names = {"config": site.config, "log": site.log, "broken": broken}

    def run(
        self,
        arguments: list[str],
        *,
        out: str = "",
        err: str = "",
        umask: int = 0o022,
        env: Mapping[str, str] | None = None,
    ) -> Said:
        shutil.rmtree(self.site.state.parent, ignore_errors=True)
        self.site.database.unlink(missing_ok=True)
        command = [argument.format(**self.names) for argument in arguments]
        plain = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        with going(1, out) as (stdout, close_out), going(2, err) as (stderr, close_err):
            done = subprocess.run(
                ["sh", "-c", f'exec "$@" {close_out} {close_err}', "sh", *SAPD, *command],
                env={**plain, **(env or {})},
                umask=umask,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                text=True,
                check=False,
                timeout=60,
            )
        out_text = re.sub(r"\d{4}-\d\d-\d\dT[\d:]+\+00:00", "TIME", done.stdout or "")
        return Said(done.returncode, out_text, done.stderr or "")


@contextmanager
def going(number: int, where: str) -> Iterator[tuple[int, str]]:
    """What `subprocess` is to be given for a stream, and what the shell is to do with it."""
    if where in ("", CLOSED):
        yield subprocess.PIPE, f"{number}>&-" if where else ""
        return
    if where == FULL:
        end = os.open(FULL, os.O_WRONLY)
    else:
        read, end = os.pipe()
        os.close(read)
    try:
        yield end, ""
    finally:
        os.close(end)


@pytest.fixture
def commands(site: Site) -> Commands:
    return Commands(site)


def cases(table: dict[str, tuple[list[str], int]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("arguments", "status"), table.values(), ids=table)


def try_unwritable(commands: Commands, arguments: list[str], status: int) -> None:
    """0 becomes 74 where something was to be written and could not be; nothing else changes."""
    for env, places in (({}, (FULL, CLOSED, PIPE)), ({"PYTHONUNBUFFERED": "1"}, (FULL,))):
        usual = commands.run(arguments, env=env)
        assert usual.status == status, usual
        assert usual.out or usual.err
        for where in places:
            lost = 74 if where != PIPE else 0
            said = commands.run(arguments, out=where, env=env)
            complaint = f"sapd: error: standard output: {REASONS.get(where)}\n"
            wanted = usual.err + (complaint if usual.out and lost else "")
            assert said == Said(status or (usual.out and lost) or 0, "", wanted), where

            said = commands.run(arguments, err=where, env=env)
            assert said == Said(status or (usual.err and lost) or 0, usual.out, ""), where

            said = commands.run(arguments, out=where, err=where, env=env)
            assert said == Said(status or lost, "", ""), where


def test_every_command_is_among_these() -> None:
    tried = {words[0] for words, _ in (COMMANDS | WITH_MAKEMAP).values()}
    assert set(cli.sapd.commands) - tried == {"man"}  # whose output is that of man(1)


@cases(COMMANDS)
def test_unwritable_output(commands: Commands, arguments: list[str], status: int) -> None:
    try_unwritable(commands, arguments, status)


@pytest.mark.makemap
@cases(WITH_MAKEMAP)
def test_unwritable_output_of_passes(commands: Commands, arguments: list[str], status: int) -> None:
    try_unwritable(commands, arguments, status)


def try_anywhere(commands: Commands, arguments: list[str], status: int) -> None:
    """The caller's language, time zone and umask change nothing."""
    usual = commands.run(arguments)
    modes = modes_of(commands.site)
    assert usual.status == status
    surroundings: list[Callable[[], Said]] = [
        lambda: commands.run(arguments, umask=0o077, env={"LANG": "C"}),
        lambda: commands.run(arguments, umask=0o002, env={"TZ": "America/St_Johns"}),
        lambda: commands.run(arguments, env={"LC_ALL": "C", "PYTHONUNBUFFERED": "1"}),
    ]
    for run in surroundings:
        assert run() == usual
        assert modes_of(commands.site) == modes


def modes_of(site: Site) -> dict[str, str]:
    """Of all that a pass made."""
    made = [*site.state.parent.glob("*"), site.state.parent, site.database]
    return {path.name: oct(path.stat().st_mode) for path in made if path.exists()}


@cases(COMMANDS)
def test_anywhere(commands: Commands, arguments: list[str], status: int) -> None:
    try_anywhere(commands, arguments, status)


@pytest.mark.makemap
@cases(WITH_MAKEMAP)
def test_passes_anywhere(commands: Commands, arguments: list[str], status: int) -> None:
    try_anywhere(commands, arguments, status)


@pytest.mark.parametrize(("where", "status"), [(FULL, 74), (PIPE, 0)])
def test_a_log_without_an_end_is_read_no_further(
    commands: Commands, where: str, status: int
) -> None:
    command = [*SAPD, "match", "-c", str(commands.site.config)]
    with subprocess.Popen(["yes"], stdout=subprocess.PIPE) as yes, going(1, where) as (end, _):
        done = subprocess.run(command, stdin=yes.stdout, stdout=end, check=False, timeout=60)
        yes.kill()
    assert done.returncode == status


@pytest.mark.parametrize("options", [[], ["-v"]], ids=["", "by click"])
def test_another_pipe_that_nobody_reads_is_no_reader_that_left(
    commands: Commands, options: list[str]
) -> None:
    code = (
        "import sys; from sapd import __main__, run\n"
        "def broken(*args, **more): raise BrokenPipeError(32, 'Broken pipe')\n"
        "run.once = broken; __main__.main()"
    )
    command = [sys.executable, "-c", code, "run", "-c", str(commands.site.config), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 70
    assert done.stderr.startswith("sapd: error: a bug in sapd, please report it: BrokenPipeError: ")
