"""Who starts sapd: crontabs and timers, as Debian's cron and systemctl take them."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from sapd.check.schedules import Schedules, schedules
from sapd.defaults import CONFIG
from tests.folders import ME, ROOT, as_nobody, put
from tests.servers.mounts import private
from tests.servers.unprivileged import NOBODY

EVERY_MINUTE = "* * * * * root /usr/local/bin/sapd run\n"


def look_at(root: Path, config: str = CONFIG) -> Schedules:
    return schedules(config, str(root), ME)


def found(root: Path, config: str = CONFIG) -> list[str]:
    """What starts sapd, relative to `root`."""
    look = look_at(root, config)
    assert look.unread == []
    return [os.path.relpath(place, root) for place in look.found]


@pytest.mark.parametrize("name", ["sapd", "sapd-often"])
def test_the_shipped_crontab_starts_sapd_once(tmp_path: Path, name: str) -> None:
    text = (ROOT / "cron" / name).read_text()
    put(tmp_path / "etc/cron.d/sapd", text)
    (line,) = [n for n, line in enumerate(text.splitlines(), 1) if line.startswith("* * * * *")]
    assert found(tmp_path) == [f"etc/cron.d/sapd:{line}"]
    both = text.replace("#* * * * *", "* * * * *")
    put(tmp_path / "etc/cron.d/sapd", both)
    assert len(found(tmp_path)) == 2


def test_nothing_at_all(tmp_path: Path) -> None:
    assert look_at(tmp_path) == Schedules()
    assert look_at(tmp_path / "missing") == Schedules()
    for name in ("etc/cron.d", "var/spool/cron/crontabs", "etc/systemd/system/timers.target.wants"):
        (tmp_path / name).mkdir(parents=True)
    assert look_at(tmp_path) == Schedules()


def test_every_place_of_cron(tmp_path: Path) -> None:
    put(tmp_path / "etc/crontab", f"SHELL=/bin/sh\n\n{EVERY_MINUTE}")
    put(tmp_path / "etc/cron.d/one", EVERY_MINUTE)
    put(tmp_path / "etc/cron.d/two_2-B", EVERY_MINUTE)
    put(tmp_path / "var/spool/cron/crontabs/root", "* * * * * sapd run\n", 0o600)
    put(tmp_path / "var/spool/cron/crontabs/tmp.Xy12", "* * * * * sapd run\n", 0o600)
    assert found(tmp_path) == [
        "etc/crontab:3", "etc/cron.d/one:1", "etc/cron.d/two_2-B:1",
        "var/spool/cron/crontabs/root:1",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "line",
    [
        "* * * * * root sapd run",
        "  */2 * * * * root sapd  run >/dev/null 2>&1",
        "@hourly root /opt/sapd/bin/sapd run -v",
        "* * * * * root sleep 30; sapd run",
        "* * * * * root if [ -x /usr/bin/sapd ]; then /usr/bin/sapd run; fi",
        '* * * * * root "/opt/a b/sapd" run',
        "* * * * * root python3 -m sapd run",
        "* * * * * root sapd list && (sapd run)",
        f"* * * * * root sapd run -c {CONFIG}",
        f"* * * * * root sapd run --config={CONFIG}",
        f"* * * * * root sapd run -c{CONFIG}",
        f"* * * * * root sapd run -vc '{CONFIG}'",
        "* * * * * root cd /etc/sapd && sapd run -c sapd.toml",
        f"* * * * * root SAPD_CONFIG={CONFIG} sapd run",
        f"* * * * * root SAPD_CONFIG=/etc/other.toml; SAPD_CONFIG={CONFIG} sapd run",
        "* * * * * root sapd run -c /etc/other.toml; sapd run",
        "* * * * * root sapd run # every minute",
        "* * * * * root sapd run\r",
        "* * * * * root echo \udcff; sapd run",
    ],
)
def test_a_line_that_starts_sapd(tmp_path: Path, line: str) -> None:
    put(tmp_path / "etc/cron.d/x", f"{line}\n")
    assert found(tmp_path) == ["etc/cron.d/x:1"]


@pytest.mark.parametrize(
    "line",
    [
        "#* * * * * root sapd run",
        "   # * * * * * root sapd run",
        "@reboot root sapd run",
        "* * * * * root true # sapd run",
        "* * * * * root cat%sapd run",
        "JOB=sapd run",
        "* * * * * root sapd list",
        "* * * * * root sapd run -n",
        "* * * * * root sapd run -vn",
        "* * * * * root sapd run --dry-run",
        "* * * * * root sapd running",
        "* * * * * root sapd run-now",
        "* * * * * root mysapd run",
        "* * * * * root my-sapd run",
        "* * * * * root sapd.old run",
        "* * * * * root sapd run -c /etc/other.toml",
        "* * * * * root sapd run --config /etc/other.toml",
        "* * * * * root SAPD_CONFIG=/etc/other.toml sapd run",
        "SAPD_CONFIG=/etc/other.toml\n* * * * * root sapd run",
        'SAPD_CONFIG = "/etc/other.toml"\n* * * * * root sapd run',
        "* * * * * root sapd run --config=/elsewhere/sapd.toml",
        "* * * * * root sapd run -c /elsewhere/sapd.toml",
        "* * * * * root sapd run -c other.toml",
        "* * * * * root sapd run -c /a\0b",
    ],
)
def test_a_line_that_does_not(tmp_path: Path, line: str) -> None:
    put(tmp_path / "etc/cron.d/x", f"{line}\n")
    assert look_at(tmp_path) == Schedules()


def test_each_configuration_has_its_own_schedule(tmp_path: Path) -> None:
    config = put(tmp_path / "sapd.toml", "")
    (tmp_path / "link.toml").symlink_to(config)
    lines = [
        f"* * * * * root sapd run -c {config}",
        f"* * * * * root SAPD_CONFIG={tmp_path}/link.toml sapd run",
        "* * * * * root SAPD_CONFIG=/etc/other.toml sapd run",
        "* * * * * root sapd run",
        f"#SAPD_CONFIG={config}",
    ]
    put(tmp_path / "etc/cron.d/x", "\n".join([*lines, ""]))
    assert found(tmp_path, str(config)) == ["etc/cron.d/x:1", "etc/cron.d/x:2"]
    assert found(tmp_path) == ["etc/cron.d/x:4"]
    put(tmp_path / "etc/cron.d/x", f"SAPD_CONFIG='{config}'\n{EVERY_MINUTE}")
    assert found(tmp_path) == []
    assert found(tmp_path, str(config)) == ["etc/cron.d/x:2"]


def spoil_name(path: Path) -> None:
    path.rename(path.with_name("sapd.cron"))


def spoil_end(path: Path) -> None:
    path.write_text(path.read_text().rstrip("\n"))


# Each way to make cron pass over a file, and a word of what is said of it.
SPOILED: list[tuple[Callable[[Path], object], str]] = [
    (spoil_name, "rename it"),
    (lambda path: path.rename(path.with_name("sapd~")), "rename it"),
    (lambda path: path.rename(path.with_name(".sapd")), "rename it"),
    (spoil_end, "add a newline"),
    (lambda path: path.chmod(0o664), "chmod go-w"),
    (lambda path: path.chmod(0o602), "chmod go-w"),
    (lambda path: path.parent.with_name("second").hardlink_to(path), "hard link"),
]
HEEDED: list[Callable[[Path], object]] = [
    lambda path: path.chmod(0o400),
    lambda path: path.rename(path.with_name("Sapd_2-")),
    lambda path: path.symlink_to(path.rename(path.parent.with_name("elsewhere.txt"))),
]


@pytest.mark.parametrize(("spoil", "remedy"), SPOILED)
def test_a_file_that_cron_passes_over_is_told(
    tmp_path: Path, spoil: Callable[[Path], object], remedy: str
) -> None:
    spoil(put(tmp_path / "etc/cron.d/sapd", EVERY_MINUTE))
    look = look_at(tmp_path)
    assert (look.found, look.unread) == ([], [])
    (ignored,) = look.ignored
    assert ignored.startswith(str(tmp_path / "etc/cron.d"))
    assert remedy in ignored


def test_a_file_of_somebody_else_is_passed_over(tmp_path: Path) -> None:
    put(tmp_path / "etc/cron.d/sapd", EVERY_MINUTE)
    (ignored,) = schedules(CONFIG, str(tmp_path), ME + 1).ignored
    assert "not root's" in ignored


def test_a_file_without_sapd_is_not_told(tmp_path: Path) -> None:
    put(tmp_path / "etc/cron.d/README.txt", "sapd run\n#* * * * * root sapd run\n", 0o666)
    assert look_at(tmp_path) == Schedules()


def test_strange_things_in_the_place_of_crontabs(tmp_path: Path) -> None:
    folder = tmp_path / "etc/cron.d"
    put(folder / "bytes", b"\xff\xfe\0* * * * *\n" + b"* * * * * \xff sapd run\n")
    (folder / "folder").mkdir()
    (folder / "dangling").symlink_to("nowhere")
    (folder / "null").symlink_to("/dev/null")
    os.mkfifo(folder / "fifo")
    os.mkfifo(tmp_path / "etc/crontab")
    put(Path(os.fsdecode(os.fsencode(folder) + b"/\xff")), EVERY_MINUTE)
    put(tmp_path / "var/spool/cron/crontabs", "a file in place of a folder")
    put(tmp_path / "etc/systemd/system", "a file in place of a folder")
    look = look_at(tmp_path)
    assert look.found == [f"{folder}/bytes:2"]
    assert len(look.ignored) == 1
    assert look.unread == []


def test_what_cannot_be_read_is_told_from_what_is_absent(folder: Path) -> None:
    spool = put(folder / "var/spool/cron/crontabs/root", EVERY_MINUTE, 0o600).parent
    put(folder / "etc/cron.d/one", EVERY_MINUTE)
    secret = put(folder / "etc/cron.d/secret", EVERY_MINUTE, 0)
    (folder / "etc/cron.d/loop").symlink_to("loop")
    spool.chmod(0)
    with as_nobody():
        look = look_at(folder)
    assert look.found == [f"{folder}/etc/cron.d/one:1"]
    assert look.unread == [
        f"{folder}/etc/cron.d/loop: Too many levels of symbolic links",
        f"{secret}: Permission denied",
        f"{spool}: Permission denied",
    ]
    spool.chmod(0o700)


def install_timer(root: Path, name: str = "sapd.timer", enable: bool = True) -> Path:
    units = root / "etc/systemd/system"
    units.mkdir(parents=True, exist_ok=True)
    for unit in ("sapd.timer", "sapd.service"):
        put(units / f"{name.removesuffix('.timer')}{unit[4:]}", (ROOT / "cron" / unit).read_text())
    wants = units / "timers.target.wants"
    wants.mkdir(exist_ok=True)
    if enable:
        (wants / name).symlink_to(f"/etc/systemd/system/{name}")
    return units


def test_the_shipped_timer(tmp_path: Path) -> None:
    units = install_timer(tmp_path, enable=False)
    assert found(tmp_path) == []
    (units / "timers.target.wants/sapd.timer").symlink_to("/etc/systemd/system/sapd.timer")
    enabled = ["etc/systemd/system/timers.target.wants/sapd.timer"]
    assert found(tmp_path) == enabled
    again = tmp_path / "run/systemd/system/a.target.wants"
    shutil.copytree(units / "timers.target.wants", again, symlinks=True)
    assert found(tmp_path) == enabled  # once
    put(tmp_path / "etc/cron.d/sapd", EVERY_MINUTE)
    assert found(tmp_path) == ["etc/cron.d/sapd:1", *enabled]


def test_a_masked_timer_or_service_starts_nothing(tmp_path: Path) -> None:
    for unit in ("sapd.timer", "sapd.service"):
        units = install_timer(tmp_path / unit)
        vendor = tmp_path / unit / "usr/lib/systemd/system"
        vendor.mkdir(parents=True)
        (units / unit).rename(vendor / unit)
        assert len(found(tmp_path / unit)) == 1
        put(units / f"{unit}.d/10.conf", "Unit=sapd.service\nExecStart=sapd run\n")
        (units / unit).symlink_to("/dev/null")
        assert found(tmp_path / unit) == []


@pytest.mark.parametrize(
    ("timer", "service", "starts"),
    [
        ("[Timer]\nUnit=other.service\n", "", False),
        ("[Timer]\nUnit=other.service\nUnit=sapd.service\n", "", True),
        ("", "[Service]\nExecStart=/bin/true\n", True),  # one more command
        ("", "[Service]\nExecStart=\nExecStart=/bin/true\n", False),
        ("", "[Service]\nExecStart=\nExecStart=/opt/sapd run \\\n -v\n", True),
        ("", "[Service]\nExecStart=\nExecStart=/opt/sapd run \\\n --dry-run\n", False),
        ("", "[Service]\nExecStart=\nExecStart=-/bin/sh -c 'sleep 1; exec sapd run'\n", True),
        ("", "[Service]\nExecStart=\n#ExecStart=sapd run\n;ExecStart=sapd run\n", False),
        ("", '[Service]\nEnvironment="A=b" "SAPD_CONFIG=/etc/other.toml"\n', False),
        ("", "[Service]\n#Environment=SAPD_CONFIG=/etc/other.toml\n", True),
    ],
)
def test_drop_ins_of_a_unit(tmp_path: Path, timer: str, service: str, starts: bool) -> None:
    units = install_timer(tmp_path)
    put(units / "sapd.timer.d/10.conf", timer)
    put(units / "sapd.service.d/10.conf", service)
    put(units / "sapd.service.d/README", "[Service]\nExecStart=\n")
    assert len(found(tmp_path)) == starts


def test_a_drop_in_covers_its_namesake_and_all_are_read_in_order(tmp_path: Path) -> None:
    vendor = tmp_path / "usr/lib/systemd/system"
    units = install_timer(tmp_path)
    put(vendor / "sapd.service.d/20.conf", "ExecStart=\n")
    assert found(tmp_path) == []
    put(units / "sapd.service.d/10.conf", "ExecStart=sapd run\n")
    assert found(tmp_path) == []
    put(units / "sapd.service.d/20.conf", "ExecStart=/bin/true\n")
    assert len(found(tmp_path)) == 1
    put(vendor / "sapd.service.d/30.conf", "ExecStart=\n")
    assert found(tmp_path) == []


def test_a_timer_of_another_name_and_a_template(tmp_path: Path) -> None:
    install_timer(tmp_path, "mail-relay.timer")
    units = install_timer(tmp_path, "pop@.timer", enable=False)
    put(units / "basic.target.wants/pop@a.timer", "")
    put(units / "basic.target.wants/pop@a.service", "")
    put(units / "unrelated", "")
    put(units / "old/mail-relay.timer", "")
    put(units / "old/pop@b.timer", "")
    assert found(tmp_path) == [
        "etc/systemd/system/basic.target.wants/pop@a.timer",
        "etc/systemd/system/timers.target.wants/mail-relay.timer",
    ]
    put(units / "pop@.service.d/10.conf", "ExecStart=\n")
    put(units / "mail-relay.service.d/10.conf", "ExecStart=\n")
    assert found(tmp_path) == []


def test_a_timer_without_its_units(tmp_path: Path) -> None:
    put(tmp_path / "etc/systemd/system/timers.target.wants/sapd.timer", "")
    assert look_at(tmp_path) == Schedules()
    put(tmp_path / "usr/lib/systemd/system/sapd.timer", b"[Timer]\nUnit=a\0b\n\xff")
    assert look_at(tmp_path) == Schedules()


@pytest.mark.servers
def test_systemctl_enables_disables_and_masks(tmp_path: Path) -> None:
    units = install_timer(tmp_path, enable=False)
    (units / "sapd.timer").chmod(0o644)

    def systemctl(verb: str) -> list[str]:
        command = ["systemctl", f"--root={tmp_path}", verb, "sapd.timer"]
        subprocess.run(command, check=True, capture_output=True)
        return found(tmp_path)

    enabled = ["etc/systemd/system/timers.target.wants/sapd.timer"]
    assert systemctl("enable") == enabled
    assert systemctl("disable") == []
    assert systemctl("enable") == enabled
    (tmp_path / "usr/lib/systemd/system").mkdir(parents=True)
    (units / "sapd.timer").rename(tmp_path / "usr/lib/systemd/system/sapd.timer")
    assert systemctl("mask") == []
    assert systemctl("unmask") == enabled


# cron starts what is due `@reboot` as soon as it has read its tables, so nobody need wait for the
# minute to turn. All of it starts together: what did not run when the rest has, does not.
_CRON = """\
: >/etc/crontab
rm -rf /etc/cron.d /var/spool/cron/crontabs
cp -a '{folder}/etc/cron.d' /etc/cron.d
cp -a '{folder}/etc/crontab' /etc/crontab
for link in '{folder}'/links/*; do
    if [ -e "$link" ]; then ln "/etc/cron.d/${{link##*/}}" /etc/second; fi
done
rm -f /usr/sbin/sendmail
cron -f &
wait=200
while [ "$(ls '{folder}/ran' | wc -l)" -lt {expected} ] && [ $wait -gt 0 ]; do
    sleep 0.1
    wait=$((wait - 1))
done
sleep 0.5
kill $!
"""


@pytest.mark.servers
def test_debians_cron_agrees(folder: Path) -> None:
    ran = folder / "ran"
    ran.mkdir()
    files = folder / "etc/cron.d"

    def write(path: Path, mark: str) -> Path:
        return put(path, f"@reboot root touch {ran}/{mark}\n* * * * * root /nowhere/sapd run\n")

    write(folder / "etc/crontab", "crontab")
    for number, (spoil, _) in enumerate(SPOILED[:-1]):
        spoil(write(files / f"spoiled{number}", f"spoiled{number}"))
        assert len(look_at(folder).ignored) == number + 1
    for number, change in enumerate(HEEDED):
        change(write(files / f"heeded{number}", f"heeded{number}"))
    linked = write(files / "linked", "linked")
    assert linked.name not in str(look_at(folder).ignored)
    put(folder / "links/linked", "")  # copied without its second name
    owned = write(files / "owned", "owned")
    shutil.chown(owned, NOBODY)
    last = write(files / "last", "last")
    stage = folder / "stage"
    stage.mkdir()
    heeded = ["crontab", "heeded0", "heeded1", "heeded2", "last"]
    script = _CRON.format(folder=folder, expected=len(heeded))
    subprocess.run(private(stage, script), check=False, capture_output=True)
    assert sorted(os.listdir(ran)) == heeded
    (folder / "second").hardlink_to(linked)
    look = look_at(folder)
    assert sorted(re.sub(r".*/(.*):2", r"\1", line) for line in look.found) == [
        "Sapd_2-", "crontab", "heeded0", "heeded2", last.name,
    ]  # fmt: skip
    assert len(look.ignored) == len(SPOILED) - 1 + 2
