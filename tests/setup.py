"""What an administrator does by the README, on a bare Debian: python3 tests/setup.py WHICH

`sendmail`: sendmail, Dovecot, rsyslog and cron; then an upgrade from 0.1.0. `postfix`: Postfix,
Dovecot and cron, with the journal alone. `installers`: pip, pipx, uv and the source distribution.

tests/fresh.sh runs it as root in a system that is thrown away: it installs packages and overwrites
their configuration. The README's own blocks are pasted. The daemons run in a network and a /dev of
their own, where 198.51.100.10 is the device that fetches mail, and sends.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
import uuid
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
OLD = "ff63fa3e6dbb2f9590bbe7fd27fd3546191317f9"  # the last of 0.1.0 whose state has version 4
SERVER, DEVICE, OTHER = "198.51.100.1", "198.51.100.10", "198.51.100.11"
WINDOW = 120  # seconds
PROMISED = 75  # seconds from a login to its 250: cron's minute, and a pass
REFUSED = (550, 554, 454)  # sendmail's; Postfix's by reject_ and defer_unauth_destination
PASSWORD = "only for this test"  # noqa: S105
CGROUPS = "/sys/fs/cgroup/systemd"
CLEARTEXT = {"2.3": "disable_plaintext_auth = no", "2.4": "auth_allow_cleartext = yes"}


def say(text: str) -> None:
    print(time.strftime("%H:%M:%S"), text, flush=True)


def sh(script: str, status: int | None = 0, cwd: Path = ROOT) -> str:
    """Run a script as if it were pasted into root's shell; what it prints on standard output."""
    done = subprocess.run(
        ["sh", "-euc", script], cwd=cwd, stdout=subprocess.PIPE, text=True, check=False,
        stdin=subprocess.DEVNULL, timeout=900,
    )  # fmt: skip
    if status is not None and done.returncode != status:
        raise SystemExit(f"status {done.returncode}, not {status}: {script}\n{done.stdout}")
    return done.stdout


def quietly(script: str) -> None:
    """The same for what is said only if it fails; daemons that it starts may keep its output."""
    with tempfile.TemporaryFile() as said:
        done = subprocess.run(
            ["sh", "-euc", script], stdin=subprocess.DEVNULL, stdout=said, stderr=said,
            check=False, timeout=900, cwd=ROOT,
        )  # fmt: skip
        if done.returncode != 0:
            said.seek(0)
            text = said.read().decode("utf-8", "replace")
            raise SystemExit(f"status {done.returncode}: {script}\n{text}")


def pasted(heading: str) -> str:
    """The block of commands below a heading of the README."""
    text = (ROOT / "README.md").read_text()
    _, _, below = text.partition(f"\n### {heading}\n")
    found = re.search(r"```sh\n(.*?)```", below.partition("\n#")[0], re.DOTALL)
    if found is None:
        raise SystemExit(f"README.md has no commands below {heading!r}")
    return found[1]


def paste(heading: str, status: int | None = 0) -> str:
    say(f"README: {heading}")
    return sh(pasted(heading), status)


def must(what: str, holds: bool) -> None:
    if not holds:
        raise SystemExit(f"{what}: it does not")
    say(f"{what}: yes")


def wait_for(what: str, holds: Callable[[], bool], patience: float) -> float:
    """Wait until it holds; the seconds that it took."""
    began = time.monotonic()
    while not holds():
        if time.monotonic() - began > patience:
            raise SystemExit(f"{what}: not within {patience:.0f} s")
        time.sleep(0.5)
    took = time.monotonic() - began
    say(f"{what}: after {took:.1f} s")
    return took


# ---- The device ----


class Talk:
    """A conversation in lines, from an address of the device's."""

    def __init__(self, client: str, port: int) -> None:
        self.socket = socket.create_connection((SERVER, port), 30, (client, 0))
        self.lines = self.socket.makefile("rb")

    def answer(self, line: str | None = None) -> str:
        """Say a line; the last line of the answer."""
        if line is not None:
            self.socket.sendall(line.encode() + b"\r\n")
        while True:
            said = self.lines.readline().decode("utf-8", "replace")
            if not said:
                raise SystemExit(f"the connection ended at {line}")
            if said[3:4] != "-":
                return said.strip()

    def close(self) -> None:
        self.socket.close()


def relay(client: str = DEVICE, to: str = "someone@elsewhere.example") -> int:
    """What the mail server answers to a recipient."""
    talk = Talk(client, 25)
    try:
        for line in (None, "EHLO device.example.net", "MAIL FROM:<bob@fresh.example.net>"):
            said = talk.answer(line)
            if said[0] != "2":
                raise SystemExit(f"{line} is answered {said}")
        said = talk.answer(f"RCPT TO:<{to}>")
        talk.answer("QUIT")
        if int(said[:3]) not in (250, *REFUSED) or (is_local(to) and said[0] != "2"):
            say(f"{to} is answered {said}")
        return int(said[:3])
    finally:
        talk.close()


def is_local(to: str) -> bool:
    return to.endswith("@fresh.example.net")


def local_works() -> bool:
    return relay(to="bob@fresh.example.net") == 250


def fetch(client: str = DEVICE) -> None:
    """A POP session over the wire."""
    talk = Talk(client, 110)
    try:
        for line in (None, "USER bob", f"PASS {PASSWORD}", "STAT", "QUIT"):
            said = talk.answer(line)
            must(f"POP3 {line and line.split()[0]} is answered {said[:3]}", said.startswith("+OK"))
    finally:
        talk.close()


# ---- The machine ----


def packages(*names: str) -> None:
    """Install packages whose daemons don't start yet."""
    say(f"apt-get install {' '.join(names)}")
    policy = Path("/usr/sbin/policy-rc.d")
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    install = "DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install"
    quietly(f"apt-get -q update && {install} {' '.join(names)}")
    policy.unlink()


def accounts() -> None:
    sh(f"useradd --create-home bob && echo 'bob:{PASSWORD}' | chpasswd")
    version = sh("dovecot --version")[:3]
    setting = CLEARTEXT.get(version, CLEARTEXT["2.4"])
    Path("/etc/dovecot/conf.d/98-test.conf").write_text(f"{setting}\nssl = no\n")


def names() -> None:
    """Who is who; nobody else is asked."""
    Path("/etc/hosts").write_text(
        f"127.0.0.1 localhost\n{SERVER} fresh.example.net fresh\n{DEVICE} device.example.net\n"
        f"{OTHER} other.example.net\n"
    )
    Path("/etc/resolv.conf").write_text("nameserver 127.0.0.1\n")


def inside() -> None:
    """Go on in a network and a /dev of this test's own: nothing of it is seen from outside."""
    script = (
        "mount -t tmpfs -o mode=755 tmpfs /dev\n"
        "mknod -m 666 /dev/null c 1 3; mknod -m 666 /dev/zero c 1 5\n"
        "mknod -m 666 /dev/full c 1 7; mknod -m 666 /dev/random c 1 8\n"
        "mknod -m 666 /dev/urandom c 1 9; mknod -m 666 /dev/tty c 5 0\n"
        "mkdir /dev/shm /dev/pts; mount -t tmpfs tmpfs /dev/shm\n"
        "mkdir -p /run/lock\n"
        "ip link set lo up\n"
        f"ip address add {SERVER}/32 dev lo\n"
        'exec "$@"'
    )
    command = ["sh", "-euc", script, "sh", sys.executable, *sys.argv, "inside"]
    done = subprocess.run(["unshare", "--net", "--mount", *command], check=False)
    raise SystemExit(done.returncode)


def connect_devices() -> None:
    """Give the device its address: sendmail takes those for its own that were there before it."""
    for address in (DEVICE, OTHER):
        sh(f"ip address add {address}/32 dev lo")


def answer_names() -> None:
    """A DNS server that knows no name: what is in no file is nowhere, at once."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 53))

    def work() -> None:
        while True:
            query, client = server.recvfrom(4096)
            server.sendto(query[:2] + b"\x81\x83" + query[4:6] + bytes(6) + query[12:], client)

    threading.Thread(target=work, daemon=True).start()


def start(*command: str, unit: str | None = None) -> None:
    """A daemon, in the control group of a unit, if one is named."""
    enter = f"echo 0 >{CGROUPS}/system.slice/{unit}/cgroup.procs; " if unit else ""
    quietly(f"{enter}{' '.join(command)} >/dev/null 2>&1 </dev/null &")


def journald(group: str) -> None:
    """A real journald, to which /dev/log leads; as tests/servers/journald.py starts it."""
    units = ("systemd-journald.service", "dovecot.service", "postfix.service", "cron.service")
    sh(
        "mount -t tmpfs tmpfs /sys/fs/cgroup\n"
        f"mkdir {CGROUPS}\nmount -t cgroup -o none,name=systemd systemd {CGROUPS}\n"
        f"mkdir {CGROUPS}/{group}\nmount --bind {CGROUPS}/{group} {CGROUPS}\n"
        f"mkdir -p {CGROUPS}/init.scope\necho 1 >{CGROUPS}/init.scope/cgroup.procs\n"
        + "".join(f"mkdir -p {CGROUPS}/system.slice/{unit}\n" for unit in units)
        + "mkdir -p /run/systemd/journal /var/log/journal /etc/systemd/journald.conf.d\n"
        "touch /run/systemd/journal/flushed\n"
        "ln -sf /run/systemd/journal/dev-log /dev/log\n"
        "systemd-machine-id-setup >/dev/null 2>&1\n"
    )
    start("/lib/systemd/systemd-journald", unit=units[0])
    wait_for("journald listens", Path("/run/systemd/journal/dev-log").exists, 30)


def no_journald(group: str) -> None:
    """Give the control groups back."""
    sh(
        "mkdir -p /mnt/c\nmount -t cgroup -o none,name=systemd systemd /mnt/c\n"
        f"for procs in $(find /mnt/c/{group} -name cgroup.procs); do\n"
        'while read -r pid; do echo "$pid" >/mnt/c/cgroup.procs || :; done <"$procs"\ndone\n'
        f"find /mnt/c/{group} -depth -type d -exec rmdir {{}} +\numount /mnt/c\n",
        status=None,
    )


# ---- What is common to both ----


def checked(what: str, *, green: bool) -> None:
    """`sapd check` has problems, each with its remedy, or none."""
    done = subprocess.run(["sapd", "check", "--json"], capture_output=True, text=True, check=False)
    if done.stderr:
        raise SystemExit(f"sapd check says on standard error: {done.stderr}")
    problems = [row for row in json.loads(done.stdout) if row["state"] == "problem"]
    for row in problems:
        say(f"  {row['status']} {row['text']}; {row['remedy']}")
    must(f"sapd check is {'green' if green else 'red'} {what}", green == (done.returncode == 0))
    must("the status is that of the first problem",
         done.returncode == (problems[0]["status"] if problems else 0))  # fmt: skip


def files() -> set[str]:
    """All that sapd might leave behind; not what daemons and people write all day."""
    script = (
        "find / -xdev \\( -path /proc -o -path /sys -o -path /dev -o -path /run -o -path /tmp"
        " -o -path /var/log -o -path /var/cache -o -path /var/spool -o -path /var/mail"
        f" -o -path /root -o -path /home -o -path '{ROOT}' -o -path /var/lib/dovecot"
        " -o -path /var/lib/postfix -o -path /var/lib/apt -o -path /var/lib/dpkg"
        " -o -path /var/tmp \\) -prune -o -print"
    )
    return {line for line in sh(script).splitlines() if "__pycache__" not in line}


def set_up(server: str) -> None:
    """The README's path for a mail server, from 550 to 250, and to 550 again."""
    must("nobody may relay before", relay() in REFUSED)
    must("local mail works before", local_works())
    checked("without a configuration", green=False)
    paste(f"Mail server: {server}")
    settings = Path("/etc/sapd/sapd.toml")
    say(settings.read_text())
    tomllib.loads(settings.read_text())
    checked("without a schedule and a login", green=False)
    must("nobody may relay without a login", relay() in REFUSED)
    must("local mail works", local_works())
    sh(f"sed -i 's/^window = .*/window = \"{WINDOW}s\"/' {settings}")
    paste("Schedule: cron, or a timer", status=None)
    checked("before anybody has fetched mail", green=False)
    fetch()
    began = time.monotonic()
    wait_for("a login opens", lambda: relay() == 250, PROMISED)
    must("another address stays closed", relay(OTHER) in REFUSED)
    must("local mail works", local_works())
    checked("at the end", green=True)
    say(sh("sapd list"))
    left = WINDOW - (time.monotonic() - began)
    wait_for("its window ends", lambda: relay() in REFUSED, left + PROMISED)
    must("its window was not cut short", time.monotonic() - began >= WINDOW - 2)


def remove(server: str, before: set[str]) -> None:
    """The README's way out: in no step of it is anybody open who should not be, or mail refused."""
    fetch()
    wait_for("a login opens", lambda: relay() == 250, PROMISED)
    must_close = True
    for line in pasted("Remove").splitlines():
        command, _, note = line.partition(" # ")
        if note.strip() in ("sendmail", "Postfix") and note.strip() != server:
            continue  # another mail server's
        say(f"README: {command}")
        sh(command)
        if "close" in line or not must_close:
            must_close = False
            must("nobody may relay", relay() in REFUSED)
        must("local mail works", local_works())
    fetch()
    time.sleep(PROMISED)
    must("a login opens nothing any more", relay() in REFUSED)
    left = sorted(files() - before)
    must(f"no file is left {left}", left == [])


# ---- The set-ups ----


def sendmail(*, is_inside: bool) -> None:
    if not is_inside:
        packages(
            *("sendmail", "make", "dovecot-pop3d", "cron", "logrotate", "iproute2", "procps"),
            *("python3-venv", "rsyslog"),
        )
        accounts()
        before = files()
        paste("Install")
        old = Path("/opt/old")  # for the upgrade; made here, where packages can be had
        quietly(
            f"git worktree add -f /root/old {OLD} && python3 -m venv {old} && "
            f"{old}/bin/pip install -q /root/old && {old}/bin/sapd --version"
        )
        before |= {name for name in files() if name.startswith("/opt/old")}
        paste("Log: Dovecot or another server, by syslog")
        Path("/root/before.json").write_text(json.dumps(sorted(before)))
        inside()
    names()
    answer_names()
    before = set(json.loads(Path("/root/before.json").read_text()))
    # Debian's sendmail listens on 127.0.0.1 alone, and counts and delays connections.
    with Path("/etc/mail/access").open("a") as access:
        access.writelines(
            f"{tag}:198.51.100\t0\n" for tag in ("ClientRate", "ClientConn", "GreetPause")
        )
    quietly("sed -i 's/, Addr=127.0.0.1//' /etc/mail/sendmail.mc && make -C /etc/mail")
    start("rsyslogd")
    wait_for("rsyslog listens", Path("/dev/log").exists, 30)
    quietly("service sendmail start; service dovecot start; service cron start")
    wait_for("sendmail answers", listens(25), 60)
    wait_for("Dovecot answers", listens(110), 60)
    connect_devices()
    set_up("sendmail")
    upgrade()
    remove("sendmail", before)


def listens(port: int) -> Callable[[], bool]:
    def answers() -> bool:
        try:
            Talk(SERVER, port).close()
        except OSError:
            return False
        return True

    return answers


def upgrade() -> None:
    """From 0.1.0 with its state: who is open stays so, until the same second."""
    say("upgrade from 0.1.0")
    old = "/opt/old/bin/sapd"
    crontab = Path("/etc/cron.d/sapd")
    text = crontab.read_text()
    crontab.unlink()
    time.sleep(61)  # a pass that runs ends
    shutil.rmtree("/var/lib/sapd")
    settings = Path("/etc/sapd/sapd.toml")
    new = settings.read_text()
    settings.write_text(
        'window = "30m"\n[[log]]\npath = "/var/log/mail.log"\nformats = ["dovecot"]\n'
        '[access]\nsource = "/etc/mail/access"\ndatabase = "/etc/mail/access.db"\n'
        '[state]\ndirectory = "/var/lib/sapd"\n'
    )
    fetch()
    sh(f"{old} run")
    must("0.1.0 opens", relay() == 250)
    state = json.loads(Path("/var/lib/sapd/state.json").read_text())
    must("its state has version 4", state["version"] == 4)
    until = [(row["address"], row["until"]) for row in json.loads(sh(f"{old} list --json"))]
    must("a run on that state says nothing", sh("sapd run 2>&1") == "")
    must("whom 0.1.0 opened stays open", relay() == 250)
    now = [(row["address"], row["until"]) for row in json.loads(sh("sapd list --json"))]
    must(f"until the same second {now}", now == until != [])
    state = json.loads(Path("/var/lib/sapd/state.json").read_text())
    must("the state is of the new version", state["version"] > 4)
    must("none was set aside", not list(Path("/var/lib/sapd").glob("*damaged*")))
    crontab.write_text(text)
    checked("after the upgrade", green=True)
    settings.write_text(new)


def postfix(*, is_inside: bool) -> None:
    group = f"sapd-setup-{uuid.uuid4()}"
    if not is_inside:
        packages(
            *("postfix", "dovecot-pop3d", "cron", "systemd", "iproute2", "procps", "python3-venv"),
        )
        accounts()
        before = files()
        paste("Install")
        Path("/root/before.json").write_text(json.dumps(sorted(before)))
        inside()
    names()
    answer_names()
    before = set(json.loads(Path("/root/before.json").read_text()))
    try:
        journald(group)
        before |= files() - {name for name in files() if "sapd" in name}
        sh("postconf -e 'myhostname = fresh.example.net' 'mydestination = $myhostname, localhost'")
        start("postfix start-fg", unit="postfix.service")
        start("dovecot -F", unit="dovecot.service")
        start("cron -f", unit="cron.service")
        wait_for("Postfix answers", listens(25), 60)
        wait_for("Dovecot answers", listens(110), 60)
        connect_devices()
        set_up("Postfix")
        must("the journal is what is read", "journal =" in Path("/etc/sapd/sapd.toml").read_text())
        remove("Postfix", before)
    finally:
        no_journald(group)


def installers(*, is_inside: bool) -> None:
    """Installed in each way: init, check and man work, and a schedule finds the program."""
    packages("python3-venv")
    if Path("/etc/ssl/machine.crt").exists():
        os.environ["SSL_CERT_FILE"] = "/etc/ssl/machine.crt"
    quietly("python3 -m venv /opt/tools && /opt/tools/bin/pip install -q pipx uv build")
    quietly(f"/opt/tools/bin/python -m build --outdir /root/dist {ROOT}")
    (wheel,) = Path("/root/dist").glob("*.whl")
    (sdist,) = Path("/root/dist").glob("*.tar.gz")
    bin_ = "/root/.local/bin"
    for name, install, program, remove in (
        ("the wheel, by pip", f"python3 -m venv /opt/a && /opt/a/bin/pip install -q {wheel}",
         "/opt/a/bin/sapd", "rm -r /opt/a"),
        ("the source, by pip", f"python3 -m venv /opt/b && /opt/b/bin/pip install -q {sdist}",
         "/opt/b/bin/sapd", "rm -r /opt/b"),
        ("pipx", f"/opt/tools/bin/pipx install {wheel}", f"{bin_}/sapd",
         "/opt/tools/bin/pipx uninstall sapd"),
        ("uv", f"/opt/tools/bin/uv tool install {wheel}", f"{bin_}/sapd",
         "/opt/tools/bin/uv tool uninstall sapd"),
    ):  # fmt: skip
        say(f"installed by {name}")
        quietly(install)
        installed(program)
        quietly(remove)


def installed(program: str) -> None:
    settings = tomllib.loads(sh(f"{program} init -n 2>/dev/null", cwd=Path("/")))
    must("init -n prints a configuration", {"log", "access"} <= settings.keys())
    crontab = sh(f"{program} init --cron", cwd=Path("/"))
    must("the schedule has the program's path", f"then {program} run;" in crontab)
    must("and the mail servers' lines are there",
         all(sh(f"{program} init --{kind}", cwd=Path("/"))
             for kind in ("sendmail", "postfix", "exim", "opensmtpd", "tcpserver", "rsyslog",
                          "logrotate", "systemd", "settings")))  # fmt: skip
    sh(f"{program} init", cwd=Path("/"))
    crontabs = Path("/etc/cron.d")
    crontabs.mkdir(exist_ok=True)
    (crontabs / "sapd").write_text(crontab)
    rows = json.loads(sh(f"{program} check --json", status=None, cwd=Path("/")))
    must("check has seen the program run",
         any(f"{program} runs as root" in row["text"] for row in rows))  # fmt: skip
    sh("rm -r /etc/sapd /etc/cron.d/sapd")
    for page in ("sapd", "sapd.toml"):
        text = sh(f"{program} man {page} | cat", cwd=Path("/"))
        must(f"sapd man {page} shows it", "SETTINGS" in text or "COMMANDS" in text)


def main() -> None:
    which = {"sendmail": sendmail, "postfix": postfix, "installers": installers}
    which[sys.argv[1]](is_inside=sys.argv[2:] == ["inside"])
    say(f"{sys.argv[1]}: all is as the README says")


if __name__ == "__main__":
    main()
