"""Nothing that stands in a file that is not sapd's raises anything."""

import time
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sapd.check.readable import why_unreadable, writable_folders
from sapd.check.rotation import rotates
from sapd.check.schedules import schedules
from sapd.check.syslogs import syslog_sources
from sapd.defaults import CONFIG
from tests.folders import ME, put

PIECES = [
    b"/* ", b"*/", b"#", b'"', b"'", b"\\", b"{", b"}", b"\n", b"\r\n", b" ", b"\0", b"\xff", b"%",
    b"(", b")", b";", b"=", b"+", b"[", b"[!", b"*", b"~", b"/", b"../", b"@", b"$", b"O ", b"1",
    b"* * * * *", b"sapd run", b"-c", b"SAPD_CONFIG=", b"ExecStart=", b"Unit=", b"endscript",
    b"include", b"tabooext", b"postrotate", b"$IncludeConfig", b"@include", b"file=", b"source s {",
    b"input(", b"RunAsUser=", b"TrustedUser=", b"DontBlameSendmail=", b"smmta", b"/var/log/qpopper",
]  # fmt: skip


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(content=st.lists(st.sampled_from(PIECES) | st.binary(max_size=3), max_size=30))
def test_no_content_raises(tmp_path: Path, content: list[bytes]) -> None:
    data = b"".join(content)
    files = [
        "etc/crontab", "etc/cron.d/x", "var/spool/cron/crontabs/root",
        "etc/systemd/system/sapd.timer", "etc/systemd/system/sapd.service",
        "etc/systemd/system/timers.target.wants/sapd.timer",
    ]  # fmt: skip
    for name in files:
        put(tmp_path / name, data)
    file = str(tmp_path / "etc/crontab")
    started = time.monotonic()
    schedules(CONFIG, str(tmp_path), ME)
    rotates("/var/log/qpopper", file)
    syslog_sources("/var/log/qpopper", (file,))
    why_unreadable(file, file)
    writable_folders(file, file)
    assert time.monotonic() - started < 5
