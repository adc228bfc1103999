"""Who else writes a log: the rules of rsyslog, syslog-ng and syslogd, and what they include."""

from pathlib import Path

import pytest

from sapd.check.look import Look
from sapd.check.syslogs import syslog_sources
from tests.folders import ROOT, as_nobody, fill, put


def sources(log: Path, conf: Path) -> list[str]:
    look = syslog_sources(str(log), (str(conf),))
    assert (look.unread, look.ignored) == ([], [])
    return look.found


SYSLOG = [
    ("mail.*\t-LOG\n", True),
    ("mail.* LOG\n", True),
    ("mail.*;auth.none LOG;RSYSLOG_FileFormat\n", True),
    ("local0.*    LOG # remark\n", True),
    (':programname, isequal, "popper" LOG\n& stop\n', True),
    ('if $programname == "popper" then LOG\n', True),
    ('action(type="omfile" file="LOG")\n', True),
    ('if $a == ["x"]\nthen {\n action(type="omfile"\n File = "LOG" mode="x")\n}\n', True),
    ("local0.* action(type='omfile' file='LOG')\n", True),
    ("$outchannel rotated,LOG,52428800,/usr/sbin/rotate\n*.* :omfile:$rotated\n", True),
    ('$template each,"DIR/%programname%"\n*.* ?each\n', True),
    ('template(name="each" type="string" string="DIR/q%programname:2:$%")\n', True),
    ("destination d_pop { file(LOG); };\n", True),
    ('destination d_pop { file("LOG" perm(0640)); };\n', True),
    ('destination d_pop { file("DIR/$PROGRAM"); };\n', True),
    ('destination d_pop { file("DIR/${PROGRAM}"); };\n', True),
    ("mail.* DIR//./qpopper\n", True),
    ("\xff\n\0mail.* LOG\n", True),
    ("mail.* /a\0b\nmail.* /a\0b/%c%/\nlocal0.* LOG\n", True),
    ('/* one\n*/ mail.* LOG\n$IncludeConfig /x/*.conf\n/* two */\n', True),
    ('$IncludeConfig /x/*.conf\nmail.* LOG\n/* two */\n', True),
    ("", False),
    ("#mail.* LOG\n", False),
    ("\t# mail.* LOG\n", False),
    ("mail.* /x # LOG\n", False),
    ('/* action(type="omfile"\n file="LOG") */\n', False),
    ("mail.* LOG.old\n", False),
    ("mail.* LOG/deeper\n", False),
    ("mail.* /srvLOG\n", False),
    ("mail.* @@host\n", False),
    ('input(type="imfile"\n File="LOG" Tag="popper:")\n', False),
    ('Input( Type="imfile" File="LOG" )\n', False),
    ("$InputFileName LOG\n$InputRunFileMonitor\n", False),
    ('source s_pop { file("LOG" follow-freq(1)); };\n', False),
    ("source s_pop {\n\tfile(LOG);\n};\n", False),
    ('log { source { file("LOG"); }; destination(d_host); };\n', False),
    ('$template each,"DIR/%programname%.log"\n*.* ?each\n', False),
    ('$template each,"/%programname%"\n*.* ?each\n', False),
    ('$template each,"DIR/deeper/%programname%"\n*.* ?each\n', False),
]  # fmt: skip


@pytest.mark.parametrize(("text", "names"), SYSLOG)
def test_a_syslog_rule_that_writes_the_log_or_not(tmp_path: Path, text: str, names: bool) -> None:
    log = put(tmp_path / "log/qpopper", "")
    conf = put(tmp_path / "rsyslog.conf", fill(text, log.parent))
    assert sources(log, conf) == [str(conf)] * names


def test_the_shipped_rule(tmp_path: Path) -> None:
    rule = ROOT / "examples" / "rsyslog" / "10-qpopper.conf"
    conf = put(tmp_path / "rsyslog.conf", f"$IncludeConfig {rule.parent}/*.conf\n")
    assert sources(Path("/var/log/qpopper"), conf) == [str(rule)]
    assert sources(Path("/var/log/mail.log"), conf) == []


@pytest.mark.parametrize(
    ("lines", "files"),
    [
        ("$IncludeConfig D/*.conf", ["a.conf", "b.conf"]),
        ("$includeconfig D/*.conf", ["a.conf", "b.conf"]),
        ("$IncludeConfig D/", ["a.conf", "b.conf", "c.off"]),
        ("$IncludeConfig D/b.conf", ["b.conf"]),
        ("$IncludeConfig d/[a]*", ["a.conf"]),
        ('include(file="D/*.conf" mode="optional")', ["a.conf", "b.conf"]),
        ('include(mode="optional"\n file="D/?.off")', ["c.off"]),
        ('@include "d/*.conf"', ["a.conf", "b.conf"]),
        ("@include 'D/a.conf'\n@version: 3.38", ["a.conf"]),
        ('@include "scl.conf"', []),
        ("#$IncludeConfig D/*.conf", []),
        ('/* include(file="D/*.conf") */', []),
        ("$IncludeConfig D/missing/*.conf", []),
    ],
)
def test_syslog_includes(tmp_path: Path, lines: str, files: list[str]) -> None:
    log = tmp_path / "log"
    for name in ("a.conf", "b.conf", "c.off", ".d.conf"):
        put(tmp_path / "d" / name, f"mail.* {log}\n")
    (tmp_path / "d/f.conf").mkdir()
    conf = put(tmp_path / "conf", lines.replace("D", f"{tmp_path}/d") + "\n")
    assert sources(log, conf) == [f"{tmp_path}/d/{file}" for file in files]


def test_syslog_includes_in_a_circle(tmp_path: Path) -> None:
    conf = put(tmp_path / "conf", f"$IncludeConfig {tmp_path}/*\nmail.* {tmp_path}/log\n")
    two = put(tmp_path / "two", f"include(file='{conf}')\nmail.* {tmp_path}/log\n")
    assert sources(tmp_path / "log", conf) == [str(conf), str(two)]


def test_links_and_missing_syslogs(tmp_path: Path) -> None:
    real = put(tmp_path / "srv/log/qpopper", "")
    (tmp_path / "log").symlink_to("srv/log")
    conf = put(tmp_path / "conf", f"mail.* {tmp_path}/log/qpopper\n")
    assert sources(real, conf) == [str(conf)]
    put(conf, f'$template each,"{tmp_path}/log/%programname%"\n')
    assert sources(tmp_path / "log/qpopper", conf) == [str(conf)]
    put(conf, f"mail.* {real}\n")
    assert sources(tmp_path / "log/qpopper", conf) == [str(conf)]
    assert sources(real, tmp_path / "missing") == []
    both = (str(tmp_path / "missing"), str(conf), str(conf))
    assert syslog_sources(str(real), both).found == [str(conf)]


def test_syslog_files_that_cannot_be_read(folder: Path) -> None:
    conf = put(folder / "conf", f"$IncludeConfig {folder}/d/*\n")
    put(folder / "d/secret", "", 0)
    with as_nobody():
        look = syslog_sources(str(folder / "log"), (str(conf),))
    assert look == Look(unread=[f"{folder}/d/secret: Permission denied"])
