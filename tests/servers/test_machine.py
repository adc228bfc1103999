"""The private machine that POP servers run on: it logs, it ends, and it tells why if it can't."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.dovecot import Dovecot
from tests.servers.machine import Machine

pytestmark = pytest.mark.servers

CLIENT, NAMED = "198.51.100.7", "203.0.113.66"


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    names = {NAMED: "evil[6.6.6.6]"}
    with Machine(tmp_path_factory.mktemp("machine"), [CLIENT, NAMED], names) as machine:
        yield machine


def test_rsyslogd_writes_every_line_in_three_forms(machine: Machine) -> None:
    machine.run(["logger", "--id=77", "-t", "tag", "the last line"])
    assert machine.wait_for(b"the last line").endswith(b" mx1 tag[77]: the last line\n")
    for path, start in ((machine.traditional, b""), (machine.rfc5424, b"<13>1 ")):
        lines = path.read_bytes().splitlines()
        assert len(lines) == len(machine.log.read_bytes().splitlines())
        assert lines[-1].startswith(start)


def test_a_client_may_have_any_name(machine: Machine) -> None:
    done = machine.run(["getent", "hosts", NAMED], capture_output=True)
    assert done.stdout.split() == [NAMED.encode(), b"evil[6.6.6.6]"]


def test_a_server_that_does_not_start_tells_why(tmp_path: Path) -> None:
    with (
        Machine(tmp_path, [CLIENT], packages=Dovecot.PACKAGES) as machine,
        pytest.raises(RuntimeError, match="Unknown setting: nonsense"),
        Dovecot(machine, tmp_path, "nonsense = yes\n"),
    ):
        pass


def test_a_machine_that_does_not_start_tells_why(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="nonsense"), Machine(tmp_path, ["nonsense"]):
        pass


def test_nothing_outlives_a_machine_nor_leaves_it(tmp_path: Path) -> None:
    before = os.stat("/etc/passwd")
    new = ["/dev/new", "/etc/new", "/run/new", "/usr/new", "/var/lib/new", "/var/mail/new"]
    with Machine(tmp_path, [CLIENT]) as machine:
        script = 'rm /etc/passwd; touch "$@"; setsid sleep 300 & echo started'
        process = machine.start(["sh", "-c", script, "sh", *new], stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"started\n"
        namespace = os.readlink(f"/proc/{machine.init}/ns/pid")
        assert namespace in process_namespaces()
    assert namespace not in process_namespaces()
    assert os.stat("/etc/passwd") == before
    assert [path for path in new if os.path.exists(path)] == []


def process_namespaces() -> set[str]:
    """The pid namespaces of all processes."""
    found = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            found.add(os.readlink(f"/proc/{pid}/ns/pid"))
        except OSError:
            continue  # it has ended meanwhile, or is the kernel's
    return found
