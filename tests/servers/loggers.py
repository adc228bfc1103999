"""Real syslog daemons other than rsyslogd, from Debian's packages, and what they write."""

import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.servers.packages import unpacked
from tests.servers.rsyslog import read, wait_until

LAST = b"sm-mta[1]: that was all"

# In a mount namespace of its own: busybox knows no socket but /dev/log.
_BUSYBOX = """\
import os, socket, subprocess, sys, time
program, log, last, *options = sys.argv[1:]
subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/dev"], check=True)
os.mknod("/dev/null", 0o20666, os.makedev(1, 3))
messages = sys.stdin.buffer.read().split(b"\\0")
daemon = subprocess.Popen([program, "syslogd", "-n", "-O", log, *options])
sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
deadline = time.monotonic() + 20
while sender.connect_ex("/dev/log") and time.monotonic() < deadline:
    time.sleep(0.02)
for message in messages:
    sender.send(message)
while last not in (open(log).read() if os.path.exists(log) else ""):
    assert time.monotonic() < deadline, "it logs nothing"
    time.sleep(0.02)
daemon.kill()
daemon.wait()
"""


def busybox(folder: Path, messages: Sequence[bytes], *options: str) -> bytes:
    """What busybox syslogd with these options writes of syslog(3)'s messages."""
    log = folder / "log"
    program = str(unpacked("busybox") / "bin" / "busybox")
    command = ["unshare", "--mount", sys.executable, "-c", _BUSYBOX, program, str(log)]
    given = b"\0".join([*messages, b"<22>" + LAST])
    subprocess.run([*command, LAST.decode(), *options], input=given, check=True, timeout=60)
    return log.read_bytes()


_SYSLOG_NG = """\
@version: 3.38
options {{ use-dns(no); chain-hostnames(no); flush-lines(1); stats-freq(0); }};
source s {{ unix-dgram("{folder}/dev-log" {flags}); }};
"""
_FILE = """\
destination {name} {{ file("{folder}/{name}" template("{template}\\n")); }};
log {{ source(s); destination({name}); }};
"""


def syslog_ng(
    folder: Path, messages: Sequence[bytes], templates: Mapping[str, str], flags: str = ""
) -> dict[str, bytes]:
    """What syslog-ng writes of them by each template; `flags` are the source's."""
    root = unpacked("syslog-ng-core")
    parts = [_FILE.format(name=name, folder=folder, template=t) for name, t in templates.items()]
    settings = folder / "conf"
    settings.write_text(_SYSLOG_NG.format(folder=folder, flags=flags) + "".join(parts))
    libraries = [root / "usr/lib/syslog-ng", root / "usr/lib/x86_64-linux-gnu"]
    [modules] = (root / "usr/lib/syslog-ng").glob("[0-9]*")  # by its version
    files = [f"--{name}={folder}/{name}" for name in ("persist-file", "pidfile", "control")]
    command = [str(root / "usr/sbin/syslog-ng"), "-F", "--no-caps", f"--cfgfile={settings}", *files]
    environment = {**os.environ, "LD_LIBRARY_PATH": ":".join(map(str, libraries))}
    with (folder / "out").open("wb") as out:
        daemon = subprocess.Popen(
            [*command, f"--module-path={modules}"], env=environment, stdout=out, stderr=out
        )
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            wait_until(lambda: sender.connect_ex(str(folder / "dev-log")) == 0)
            for message in [*messages, b"<22>" + LAST]:
                sender.send(message)
        wait_until(lambda: all(LAST in read(folder / name) for name in templates))
    except TimeoutError as error:
        raise RuntimeError(f"syslog-ng does not log: {(folder / 'out').read_text()}") from error
    finally:
        daemon.kill()
        daemon.wait()
    return {name: read(folder / name) for name in templates}
