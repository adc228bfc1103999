"""The ready-made set-ups: the commented configuration, the quickstart, the two README commands."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sapd import config
from sapd.events import formats
from tests.servers.mounts import private
from tests.servers.unprivileged import NOBODY, PYTHON, installed_for_everybody

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "sapd.toml"
QUICKSTART = ROOT / "examples" / "quickstart"
COMMANDS = ["sh examples/quickstart/run.sh", "sh tests/run.sh"]


def with_optional_settings() -> str:
    """The example with every setting behind a bare # in force."""
    text = re.sub(r"^#(?=[\[\w])", "", EXAMPLE.read_text(), flags=re.MULTILINE)
    # Of these pairs one excludes the other.
    return re.sub(r"^(journal|type|self_closing) = .*$", "", text, flags=re.MULTILINE)


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
    for result in results:  # it may be repeated, and shows the same
        assert result.returncode == 0, result.stderr
        assert result.stdout == results[1].stdout
        assert "203.0.113.9" in result.stderr  # a login, refused
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


@pytest.mark.servers
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_the_quickstart_by_root_in_an_ordinary_users_checkout(folder: Path, umask: int) -> None:
    """What it makes there is the user's: makemap, as root, would refuse his folder."""
    copy = copy_of_the_quickstart(folder)
    (copy / ".venv").unlink()
    (copy / ".venv" / "bin").mkdir(parents=True)
    env = " ".join(f"{name}={value}" for name, value in installed_for_everybody(folder).items())
    for name, options in {"python": "", "sapd": "-m sapd"}.items():
        program = copy / ".venv" / "bin" / name
        program.write_text(f'#!/bin/sh\nexec env {env} {PYTHON} {options} "$@"\n')
        program.chmod(0o755)
    subprocess.run(["chmod", "-R", "g+w", copy], check=True)  # as umask 002 leaves it
    subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", copy], check=True)
    done = subprocess.run(
        COMMANDS[0].split(), cwd=copy, umask=umask, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "198.51.100.7" in done.stdout
    made = [QUICKSTART / "access.db", QUICKSTART / "state", QUICKSTART / "state" / "state.json"]
    for path in made:
        assert (copy / path.relative_to(ROOT)).stat().st_uid == NOBODY


# No makemap, no sendmail; apt-get and dpkg-query are stand-ins: the first notes its call and ends
# with a status that is given, the second knows one package.
_WITHOUT_SENDMAIL = """\
rm -f /usr/sbin/sendmail /usr/sbin/makemap /usr/sbin/policy-rc.d /etc/alternatives/*sendmail
mkdir -p /usr/local/sbin
cd /usr/local/sbin
printf '%s\\n' '#!/bin/sh' 'echo "apt-get says $*"' \\
    '{{ echo "apt-get $*"; cat /usr/sbin/policy-rc.d; }} >>/run/called' 'exit {apt}' >apt-get
printf '%s\\n' '#!/bin/sh' 'case "$*" in *Provides*) echo "{package}";; esac' >dpkg-query
chmod 755 *
PATH=/usr/local/sbin:$PATH
{prepare}
cd '{copy}'
status=0
sh {script} || status=$?
cat /run/called || :
echo "policy afterwards: $(cat /usr/sbin/policy-rc.d || echo none)"
exit $status
"""


def run_without_sendmail(
    folder: Path, script: str, package: str = "", prepare: str = "", apt: int = 0
) -> "subprocess.CompletedProcess[str]":
    copy = copy_of_the_quickstart(folder)
    (copy / "tests").mkdir()
    shutil.copy(ROOT / "tests" / "run.sh", copy / "tests")
    stage = folder / "stage"
    stage.mkdir()
    commands = _WITHOUT_SENDMAIL.format(
        package=package, prepare=prepare, copy=copy, script=script, apt=apt
    )
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


@pytest.mark.servers
@pytest.mark.parametrize("apt", [0, 100])
def test_what_apt_says_is_shown_only_if_it_fails(tmp_path: Path, apt: int) -> None:
    script = "examples/quickstart/run.sh"
    result = run_without_sendmail(tmp_path, script, apt=apt)
    assert result.stdout.startswith("installing with apt-get: sendmail-bin\n")
    assert (
        "apt-get says -q -y --no-install-recommends --no-remove install sendmail-bin"
        in result.stderr
    ) == bool(apt)
    assert ("sendmail is installed, but neither started" in result.stdout) == (not apt)
    if apt:
        assert result.returncode == 1
        assert (
            f"{script}: installing with apt-get: sendmail-bin: failed with status" in result.stderr
        )
        assert "sapd run" not in result.stdout


@pytest.mark.parametrize("script", ["examples/quickstart/run.sh", "tests/run.sh"])
def test_a_python_that_is_missing_or_old_is_named_with_what_installs_it(
    tmp_path: Path, script: str
) -> None:
    old = tmp_path / "bin" / "python3"
    old.parent.mkdir()
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    env = {"PATH": f"{old.parent}:/usr/bin:/bin", "HOME": str(tmp_path)}
    done = subprocess.run(
        ["sh", ROOT / script], env=env, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith("Debian 12 and later have it: apt-get install python3\n")
    assert done.stderr.count("\n") == 1
