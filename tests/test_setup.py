"""The ready-made set-ups: the commented configuration, the quickstart, the two README commands."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sapd import config, formats
from tests.servers.mounts import private

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "sapd.toml"
QUICKSTART = ROOT / "examples" / "quickstart"
COMMANDS = ["sh examples/quickstart/run.sh", "sh tests/run.sh"]


def with_optional_settings() -> str:
    """The example with every setting behind a bare # in force."""
    return re.sub(r"^#(?=[\[\w])", "", EXAMPLE.read_text(), flags=re.MULTILINE)


@pytest.mark.parametrize("text", [EXAMPLE.read_text(), with_optional_settings()])
@pytest.mark.parametrize("source", ["with", "without"])
def test_sapd_accepts_the_commented_configuration(tmp_path: Path, text: str, source: str) -> None:
    if source == "without":
        text = re.sub("^source = .*$", "", text, flags=re.MULTILINE)
        text = text.replace('"/etc/mail/access.db"', '"/var/lib/sapd/relay.db"')
        text = re.sub("^(client_|greet_).*$", "", text, flags=re.MULTILINE)
    file = tmp_path / "sapd.toml"
    file.write_text(text)
    config.load(str(file))


def test_the_commented_configuration_names_every_format() -> None:
    text = EXAMPLE.read_text()
    for name in [*formats.names(), formats.AUTO]:
        assert f'"{name}"' in text, name


def test_the_readme_names_both_commands_and_ci_runs_the_second() -> None:
    readme = (ROOT / "README.md").read_text()
    for command in COMMANDS:
        assert re.search(f"^ *{command}$", readme, re.MULTILINE)
        assert (ROOT / command.removeprefix("sh ")).is_file()
    ci = ROOT / ".ci" / "run"
    assert ci.stat().st_mode & 0o111
    assert ci.read_text().endswith(f"exec {COMMANDS[1]}\n")


def copy_of_the_quickstart(folder: Path) -> Path:
    """A checkout whose virtual environment is ready: this one."""
    copy = folder / "checkout"
    shutil.copytree(
        QUICKSTART,
        copy / "examples" / "quickstart",
        ignore=shutil.ignore_patterns("state", "access.db"),
    )
    (copy / ".venv").symlink_to(sys.prefix)
    return copy


@pytest.mark.servers
def test_the_quickstart_opens_the_addresses_that_it_should(tmp_path: Path) -> None:
    copy = copy_of_the_quickstart(tmp_path)
    results = [
        subprocess.run(COMMANDS[0].split(), cwd=copy, capture_output=True, text=True, check=False)
        for _ in range(2)
    ]
    for result in results:  # it may be repeated
        assert result.returncode == 0, result.stderr
        database = copy / "examples" / "quickstart" / "access.db"
        dump = subprocess.check_output(["makemap", "-u", "hash", database], text=True).lower()
        entries = dict(line.split("\t") for line in dump.splitlines())
        assert entries.pop("connect:192.0.2") == "relay"
        assert entries.pop("connect:203.0.113") == "reject"
        assert {key.removeprefix("connect:") for key in entries} == {
            "198.51.100.7",
            "198.51.100.12",
            "ipv6:2001:db8:0:0:0:0:0:25",
            "ipv6:2001:db8::25",
        }
        for opened in ("198.51.100.7", "198.51.100.12", "2001:db8::25"):
            assert opened in result.stdout
    assert "203.0.113.9" in results[0].stderr  # a login, refused: said once
    assert results[1].stderr == ""


# No makemap, no sendmail; apt-get and dpkg-query are stand-ins: the first tells of its call, the
# second knows one package.
_WITHOUT_SENDMAIL = """\
rm -f /usr/sbin/sendmail /usr/sbin/makemap /usr/sbin/policy-rc.d /etc/alternatives/*sendmail
mkdir -p /usr/local/sbin
cd /usr/local/sbin
printf '%s\\n' '#!/bin/sh' 'echo "apt-get $*"; cat /usr/sbin/policy-rc.d' >apt-get
printf '%s\\n' '#!/bin/sh' 'case "$*" in *Provides*) echo "{package}";; esac' >dpkg-query
chmod 755 *
PATH=/usr/local/sbin:$PATH
{prepare}
cd '{copy}'
status=0
sh {script} || status=$?
echo "policy afterwards: $(cat /usr/sbin/policy-rc.d || echo none)"
exit $status
"""


def run_without_sendmail(
    folder: Path, script: str, package: str = "", prepare: str = ""
) -> "subprocess.CompletedProcess[str]":
    copy = copy_of_the_quickstart(folder)
    (copy / "tests").mkdir()
    shutil.copy(ROOT / "tests" / "run.sh", copy / "tests")
    stage = folder / "stage"
    stage.mkdir()
    commands = _WITHOUT_SENDMAIL.format(package=package, prepare=prepare, copy=copy, script=script)
    return subprocess.run(private(stage, commands), capture_output=True, text=True, check=False)


@pytest.mark.servers
@pytest.mark.parametrize("script", ["examples/quickstart/run.sh", "tests/run.sh"])
@pytest.mark.parametrize(
    ("package", "prepare", "named"),
    [
        ("installed postfix default-mta, mail-transport-agent", "", "postfix"),
        ("half-configured exim4-daemon-light mail-transport-agent", "", "exim4-daemon-light"),
        ("", "touch /usr/sbin/sendmail", "/usr/sbin/sendmail"),
    ],
)
def test_another_mail_server_stays(
    tmp_path: Path, script: str, package: str, prepare: str, named: str
) -> None:
    result = run_without_sendmail(tmp_path, script, package, prepare)
    assert result.returncode == 1
    assert "apt-get" not in result.stdout
    assert [line for line in result.stderr.splitlines() if line.startswith(script)] == [
        f"{script}: this machine has another mail server, {named}, "
        "which installing sendmail would replace: nothing was changed"
    ]


@pytest.mark.servers
@pytest.mark.parametrize(
    ("prepare", "during", "afterwards"),
    [
        ("", "exit 101", "none"),
        ("echo 'exit 104' >/usr/sbin/policy-rc.d", "exit 104", "exit 104"),
        ("{left_behind}", "exit 101", "none"),
    ],
)
def test_installing_makemap_starts_no_daemon(
    tmp_path: Path, prepare: str, during: str, afterwards: str
) -> None:
    [mark] = re.findall("mark='(.*)'", (QUICKSTART / "lib.sh").read_text())
    prepare = prepare.format(
        left_behind=f"printf '%s\\n' '#!/bin/sh' '{mark}' 'exit 101' >/usr/sbin/policy-rc.d"
    )
    removed = "config-files postfix mail-transport-agent"
    result = run_without_sendmail(tmp_path, "examples/quickstart/run.sh", removed, prepare)
    _, _, said = result.stdout.partition("--no-remove install sendmail-bin\n")
    assert during in said.partition("policy afterwards: ")[0].splitlines()
    assert said.endswith(f"policy afterwards: {afterwards}\n")
