"""A private machine for POP and IMAP servers: a network, folders, accounts and a syslog of its own.

syslog(3) knows no socket but /dev/log, and servers know no other accounts than /etc/passwd. So they
live in namespaces: nothing of the real machine is changed, no daemon outlives the machine, and what
they log comes through a real rsyslogd, as it would on a mail server.
"""

import ctypes
import os
import shlex
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from tests.servers import probe
from tests.servers.namespace import SERVER_IPV4, SERVER_IPV6, Namespace
from tests.servers.packages import unpacked_apart

HOST = "mx1"
PASSWORD = "sesame"  # noqa: S105 # of every account
_HASH = "$5$sapd$Icfo0eR64AnwfLU/OTO2LUxVu0/lHvC8TPmp7zT/b93"
ACCOUNTS = ("bob", "alice", "carol", "mail user")
# What the packages' own set-up scripts would make.
SYSTEM_ACCOUNTS = (
    *("courier", "cyrus", "dovecot", "dovenull", "perdition", "popa3d", "spop3d"),
    *("postfix", "postdrop", "Debian-exim", "opensmtpd", "opensmtpq"),
)
STARTUP = 20.0  # seconds
_CLONE_NEWNET = 0x40000000

FOLDERS = ("/etc", "/usr", "/var/lib", "/var/spool", "/var/mail", "/var/log", "/var/cache")
DEVICES = ("full", "null", "random", "tty", "urandom", "zero")

# Run by pid 1 of the new namespaces. It ends, and everything with it, when its stdin does.
_INIT = """\
set -eu
hostname {host}
ip link set lo up
for address in {addresses}; do
    case $address in
    *:*) ip address add "$address" dev lo nodad ;;
    *) ip address add "$address" dev lo ;;
    esac
done
stage={folder}/stage
mount -t tmpfs -o mode=755 tmpfs "$stage"
for folder in {folders}; do
    layers=$stage/layers$folder
    mkdir -p "$layers/upper" "$layers/work"
    chown --reference="$folder" "$layers/upper"
    chmod --reference="$folder" "$layers/upper"
    lower=$folder
    for other in {roots}; do
        [ ! -d "$other$folder" ] || lower=$other$folder:$lower
    done
    mount -t overlay overlay \\
        -o "lowerdir=$lower,upperdir=$layers/upper,workdir=$layers/work" "$folder"
done
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p "$stage/dev/shm" "$stage/dev/pts"
for device in {devices}; do
    : >"$stage/dev/$device"
    mount --bind "/dev/$device" "$stage/dev/$device"
done
ln -s /proc/self/fd /proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2 "$stage/dev"
cd "$stage/dev" && mv 0 stdin && mv 1 stdout && mv 2 stderr && cd /
mount --rbind "$stage/dev" /dev
install -d -m 1777 /dev/shm
rsyslogd -n -f {folder}/rsyslog.conf -i NONE &
until logger --socket-errors=on -t ready started; do sleep 0.02; done 2>/dev/null
cat >/dev/null
"""

# The last one is what tests wait for: the line is in the others by then.
_RSYSLOG = """\
global(workDirectory="{folder}")
module(load="imuxsock" SysSock.Name="/dev/log" SysSock.RateLimit.Interval="0")
{rules}
*.* action(type="omfile" file="{folder}/traditional" template="RSYSLOG_TraditionalFileFormat")
*.* action(type="omfile" file="{folder}/rfc5424" template="RSYSLOG_SyslogProtocol23Format")
*.* action(type="omfile" file="{folder}/log" template="RSYSLOG_FileFormat")
"""

_FILES = {
    "nsswitch.conf": "passwd: files\ngroup: files\nshadow: files\nhosts: files\n",
    "pam.d/common-auth": "auth required pam_unix.so nodelay\n",
    "pam.d/common-account": "account required pam_unix.so\n",
    "pam.d/common-password": "password required pam_deny.so\n",
    "pam.d/common-session": "session required pam_permit.so\n",
    "pam.d/common-session-noninteractive": "session required pam_permit.so\n",
}


class _Inside(subprocess.Popen[bytes]):
    """A process on a machine, a child of nsenter, which ends as it ends.

    Without nsenter it would be a child of the real machine's pid 1, and a zombie until that looks
    after it; and a machine does not end while it has one.
    """

    def send_signal(self, sig: int) -> None:
        """Send it to the process, not to nsenter."""
        with suppress(OSError):  # it has ended
            for child in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split():
                os.kill(int(child), sig)


class Machine(Namespace):
    """A machine with rsyslogd, the server's addresses and the clients', from `with` to its end.

    `log` is what rsyslogd wrote, `traditional` and `rfc5424` are the same lines in other forms.
    """

    def __init__(
        self,
        folder: Path,
        clients: Sequence[str],
        names: Mapping[str, str] | None = None,
        packages: Sequence[str] = (),
        rules: str = "",
    ) -> None:
        """`names` are what addresses are called in /etc/hosts; `packages` Debian's, added.

        `rules` are rsyslog's, before its own: what they `stop` is in no log but theirs.
        """
        super().__init__(clients)
        self.folder = folder
        self.names = names or {}
        self.packages = packages
        self.rules = rules
        self.log = folder / "log"
        self.traditional = folder / "traditional"
        self.rfc5424 = folder / "rfc5424"
        self.started: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        """Start it; RuntimeError with the words of whatever failed."""
        own = self.folder / "root"
        _write_accounts(own)
        _write_settings(own, self.names)
        (self.folder / "stage").mkdir()
        (self.folder / "rsyslog.conf").write_text(
            _RSYSLOG.format(folder=self.folder, rules=self.rules)
        )
        roots = [*unpacked_apart(self.packages), own]
        script = _INIT.format(
            host=HOST,
            addresses=shlex.join([SERVER_IPV4, SERVER_IPV6, *self.clients]),
            folder=shlex.quote(str(self.folder)),
            folders=shlex.join(FOLDERS),
            roots=shlex.join(map(str, roots)),
            devices=shlex.join(DEVICES),
        )
        output = self.folder / "init.out"
        with output.open("wb") as out:
            self.process = subprocess.Popen(
                [
                    *("unshare", "--net", "--mount", "--uts", "--ipc", "--pid", "--fork"),
                    *("--kill-child", "--mount-proc", "sh", "-c", script),
                ],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=out,
            )
        try:
            self.wait_for(b"ready: started", STARTUP)
            children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
            self.init = int(children.read_text())
            self.prober = self.start(
                [sys.executable, probe.__file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
        except (TimeoutError, OSError, ValueError) as error:
            self._stop()
            raise RuntimeError(f"the machine does not start: {output.read_text()}") from error
        return self

    def __exit__(self, *error: object) -> None:
        """End every process of the machine."""
        self._stop()

    def start(self, command: Sequence[str], **options: Any) -> "subprocess.Popen[bytes]":
        """Start a process inside; `options` as of Popen."""
        process = _Inside([*self._entering(), *command], **options)
        self.started.append(process)
        return process

    def run(self, command: Sequence[str], **options: Any) -> "subprocess.CompletedProcess[Any]":
        """Run a command inside to its end, which must be a good one."""
        options = {"check": True, "timeout": 60, **options}
        return subprocess.run([*self._entering(), *command], **options)

    @property
    def root(self) -> Path:
        """The machine's own view of its folders."""
        return Path(f"/proc/{self.init}/root")

    def connect(self, client: str, port: int, timeout: float = 5.0) -> socket.socket:
        """Connect from one of the clients' addresses to the server's of the same family."""
        made: list[socket.socket] = []
        failed: list[OSError] = []
        server = SERVER_IPV6 if ":" in client else SERVER_IPV4

        def work() -> None:
            # A thread may be in another network than its process, and a socket stays in the
            # network that it was made in.
            try:
                _enter_network(self.init)
                made.append(socket.create_connection((server, port), timeout, (client, 0)))
            except OSError as error:
                failed.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        for error in failed:
            raise error
        return made[0]

    def wait_for(self, text: bytes, patience: float = STARTUP) -> bytes:
        """Wait until the log has a line with this text; that line. TimeoutError with the log."""
        deadline = time.monotonic() + patience
        while True:
            written = self.log.read_bytes() if self.log.exists() else b""
            for line in written.splitlines(keepends=True):
                if text in line and line.endswith(b"\n"):
                    return line
            if time.monotonic() > deadline or self.process.poll() is not None:
                last = written[-4000:].decode(errors="replace")
                raise TimeoutError(f"no {text!r} in the log, which ends:\n{last}")
            time.sleep(0.02)

    def _entering(self) -> list[str]:
        return [
            *("nsenter", f"--target={self.init}", "--net", "--mount", "--uts", "--ipc", "--pid"),
            "--",
        ]

    def _stop(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for process in self.started:
            process.kill()
            with suppress(ValueError):  # the test has closed its pipes
                process.communicate()


def _write_accounts(root: Path) -> None:
    """The machine's own accounts and ours, with a mailbox and a home for each of ours."""
    etc = root / "etc"
    etc.mkdir(parents=True)
    passwd = Path("/etc/passwd").read_text().splitlines(keepends=True)
    group = Path("/etc/group").read_text().splitlines(keepends=True)
    shadow = []
    ours = {name: (2001 + n, f"/var/lib/{name}") for n, name in enumerate(ACCOUNTS)}
    ours |= {name: (901 + n, "/nonexistent") for n, name in enumerate(SYSTEM_ACCOUNTS)}
    passwd = [line for line in passwd if line.partition(":")[0] not in ours]
    group = [line for line in group if line.partition(":")[0] not in ours]
    for name, (number, home) in ours.items():
        passwd.append(f"{name}:x:{number}:{number}::{home}:/bin/sh\n")
        group.append(f"{name}:x:{number}:\n")
        shadow.append(f"{name}:{_HASH if name in ACCOUNTS else '*'}:19000:0:99999:7:::\n")
    (etc / "passwd").write_text("".join(passwd))
    (etc / "group").write_text("".join(group))
    (etc / "shadow").write_text("root:*:19000:0:99999:7:::\n" + "".join(shadow))
    (etc / "shadow").chmod(0o640)
    for name in ACCOUNTS:
        number, home = ours[name]
        (root / home[1:]).mkdir(parents=True)
        mailbox = root / "var/mail" / name
        mailbox.parent.mkdir(exist_ok=True)
        mailbox.touch(0o660)
        for path in (root / home[1:], mailbox):
            os.chown(path, number, number)


def _write_settings(root: Path, names: Mapping[str, str]) -> None:
    hosts = {"127.0.0.1": "localhost", SERVER_IPV4: HOST, SERVER_IPV6: HOST, **names}
    for path, text in _FILES.items():
        (root / "etc" / path).parent.mkdir(exist_ok=True)
        (root / "etc" / path).write_text(text)
    (root / "etc/hosts").write_text(
        "".join(f"{address}\t{name}\n" for address, name in hosts.items())
    )


def _enter_network(pid: int) -> None:
    """Take this thread to the network of a process; os.setns comes with Python 3.12 only."""
    libc = ctypes.CDLL(None, use_errno=True)
    handle = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    try:
        if libc.setns(handle, _CLONE_NEWNET):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    finally:
        os.close(handle)
