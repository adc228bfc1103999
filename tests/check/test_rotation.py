"""Who else shortens a log: what logrotate's configuration names, as logrotate itself does."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from sapd.check import rotation
from tests.folders import ROOT, as_nobody, fill, put

BLOCK = "{\n\tdaily\n\trotate 7\n}\n"


def rotates(log: Path, conf: Path) -> list[str]:
    look = rotation.rotates(str(log), str(conf))
    assert (look.unread, look.ignored) == ([], [])
    return look.found


# A configuration with LOG for the log and DIR for its folder, and whether it names the log.
ROTATION = [
    ("LOG {\n}\n", True),
    ("LOG{\n}\n", True),
    ("LOG {}", True),
    ("LOG {", True),
    ("LOG\n{\n}\n", True),
    ("\t LOG { daily }\n", True),
    ('"LOG" {\n}\n', True),
    ("'LOG' {\n}\n", True),
    ("DIR/qpo\\pper {\n}\n", True),
    ("DIR//qpopper {\n}\n", True),
    ("DIR/./qpopper {\n}\n", True),
    ("DIR/* {\n}\n", True),
    ("DIR/q*r {\n}\n", True),
    ("DIR/qpoppe? {\n}\n", True),
    ("DIR/[pq]popper {\n}\n", True),
    ("DIR/[!ab]popper {\n}\n", True),
    ("DIR/[^ab]popper {\n}\n", True),
    ('"DIR/q*" {\n}\n', True),
    ("DIR/a LOG DIR/b {\n}\n", True),
    ('DIR/a "DIR/sp ace" LOG {\n}\n', True),
    ("DIR/a\nLOG\n{\n}\n", True),
    ("DIR/a\n# remark\n\nLOG {\n}\n", True),
    ("DIR/a # remark\nLOG {\n}\n", True),
    ("weekly\ncompress\nLOG {\n}\n", True),
    ("nonsense\nLOG {\n}\n", True),
    ("DIR/a {\n}\nLOG {\n}\n", True),
    ("DIR/a { daily }\nLOG {\n}\n", True),
    ("DIR/a {\n# }\n}\nLOG {\n}\n", True),
    ("DIR/a {\nnonsense\n}\nLOG {\n}\n", True),
    ("DIR/a {\npostrotate\n}\nendscript\n}\nLOG {\n}\n", True),
    ("firstaction\nDIR/a {\nendscript\nLOG {\n}\n", True),
    ("", False),
    ("# LOG {\n# }\n", False),
    ("\t#LOG {\n#}\n", False),
    ("#DIR/a LOG {\n#}\n", False),
    ("DIR/a\n#DIR/b LOG\nDIR/b {\n}\n", False),
    ("LOG", False),
    ("LOG.old {\n}\n", False),
    ("LOG/* {\n}\n", False),
    ("DIR* {\n}\n", False),
    ("DIR/[!q]popper {\n}\n", False),
    ("DIR/*.log {\n}\n", False),
    ("DIR/a {\nmail LOG\n}\n", False),
    ("DIR/a {\n# LOG {\n}\n", False),
    ("DIR/a {\npostrotate\nLOG {\nendscript\n}\n", False),
    ("DIR/a {\nprerotate\n}\nLOG {\n endscript\n}\n", False),
    ("firstaction\nLOG {\nendscript\nDIR/a {\n}\n", False),
    ("olddir DIR\nDIR/a {\n}\n", False),
    ("qpopper {\n}\n", False),
]


@pytest.mark.parametrize(("text", "names"), ROTATION)
def test_a_configuration_that_names_the_log_or_not(tmp_path: Path, text: str, names: bool) -> None:
    log = put(tmp_path / "log/qpopper", "")
    conf = put(tmp_path / "logrotate.conf", fill(text, log.parent))
    assert rotates(log, conf) == [str(conf)] * names


def test_the_shipped_configurations(tmp_path: Path) -> None:
    conf = put(tmp_path / "conf", f"weekly\ninclude {tmp_path}/d\n")
    shipped = put(tmp_path / "d/qpopper", (ROOT / "cron" / "logrotate").read_text())
    assert rotates(Path("/var/log/qpopper"), conf) == [str(shipped)]
    assert rotates(Path("/var/log/popper"), conf) == []


def test_dots_are_not_matched_by_wildcards(tmp_path: Path) -> None:
    conf = put(tmp_path / "conf", f"{tmp_path}/* {{\n}}\n")
    assert rotates(tmp_path / ".qpopper", conf) == []
    put(conf, f"{tmp_path}/.q* {{\n}}\n")
    assert rotates(tmp_path / ".qpopper", conf) == [str(conf)]


def test_symbolic_links_on_the_way(tmp_path: Path) -> None:
    real = put(tmp_path / "srv/log/qpopper", "")
    (tmp_path / "log").symlink_to("srv/log")
    (tmp_path / "link").symlink_to(real)
    conf = put(tmp_path / "conf", f"{tmp_path}/log/qpopper {BLOCK}")
    for log in (real, tmp_path / "log/qpopper", tmp_path / "link"):
        assert rotates(log, conf) == [str(conf)]
    put(conf, f"{tmp_path}/log/q* {BLOCK}")
    assert rotates(real, conf) == [str(conf)]
    put(conf, f"{tmp_path}/l?g/q* {BLOCK}")
    assert rotates(tmp_path / "log/qpopper", conf) == [str(conf)]
    put(conf, f"{real} {BLOCK}")
    for log in (real, tmp_path / "log/qpopper", tmp_path / "link"):
        assert rotates(log, conf) == [str(conf)]
    put(conf, f"{tmp_path}/link {BLOCK}")  # logrotate skips a log that is a symbolic link
    assert rotates(real, conf) == []


INCLUDES = [
    ("include D", ["a", ".hidden"]),
    ("include = D", ["a", ".hidden"]),
    ("  include\tD", ["a", ".hidden"]),
    ("tabooext + .foo", []),
    ("tabooext .foo\ninclude D", ["a", ".hidden", "b.dpkg-old", "b~", "b,v", "b.bak"]),
    ("tabooext + .foo, a\ninclude D", [".hidden"]),
    ("tabooext +.foo a\ninclude D", [".hidden"]),
    ("tabooext -old .bak ~\ninclude D", ["a", ".hidden", "b,v"]),
    ("tabooext + idden\ninclude D", ["a", ".hidden"]),  # no * stands for the dot
    ("taboopat + ?\ninclude D", [".hidden"]),
    ("taboopat + idden\ninclude D", ["a", ".hidden"]),
    ("taboopat .h*\ninclude D", ["a", "b.dpkg-old", "b~", "b,v", "b.bak"]),
    ("include D\ntabooext + a", ["a", ".hidden"]),
    ("include D/b.dpkg-old", ["b.dpkg-old"]),
    ("include D/missing\ninclude D/a", ["a"]),
    ("include D/a # remark", []),
    ('include "D"', []),
    ("include D/*", []),
    ("#include D", []),
    ("Include D", []),
    ("include", []),
    ("/nowhere {\ninclude D\n}", ["a", ".hidden"]),
    ("/nowhere {\n}\ninclude D", ["a", ".hidden"]),
    ("/nowhere {\nprerotate\n}\nendscript\n}\ninclude D", ["a", ".hidden"]),
    ("prerotate\ninclude D\nendscript", []),
]


def rotation_folder(folder: Path) -> None:
    for name in ("a", ".hidden", "b.dpkg-old", "b~", "b,v", "b.bak"):
        put(folder / "d" / name, f"{folder}/log/{name.strip('.')} {{\n}}\n")
        put(folder / "log" / name.strip("."), "")
    (folder / "d/folder").mkdir()
    (folder / "d/dangling").symlink_to("nowhere")


def named_by_include(folder: Path, conf: Path) -> list[str]:
    logs = sorted(os.listdir(folder / "log"))
    return [log for log in logs if rotates(folder / "log" / log, conf)]


@pytest.mark.parametrize(("lines", "files"), INCLUDES)
def test_includes_and_what_they_pass_over(tmp_path: Path, lines: str, files: list[str]) -> None:
    rotation_folder(tmp_path)
    conf = put(tmp_path / "conf", lines.replace("D", f"{tmp_path}/d"))
    assert named_by_include(tmp_path, conf) == sorted(file.strip(".") for file in files)


def test_includes_in_a_circle(tmp_path: Path) -> None:
    conf = put(tmp_path / "conf", f"include {tmp_path}/d\ninclude {tmp_path}/conf\n")
    put(tmp_path / "d/one", f"include {conf}\ninclude {tmp_path}/d\n{tmp_path}/log {BLOCK}")
    put(tmp_path / "d/two", f"{tmp_path}/log {BLOCK}{tmp_path}/log {BLOCK}")
    assert sorted(rotates(tmp_path / "log", conf)) == [f"{tmp_path}/d/one", f"{tmp_path}/d/two"]


def test_strange_rotation_files(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert rotates(log, tmp_path / "missing") == []
    assert rotates(log, tmp_path / "missing" / "deeper") == []
    conf = put(tmp_path / "conf", b"\xff\xfe\0 {\n}\n/a\0b/c {\n}\ninclude /a\0b\ninclude \xff\n")
    assert rotates(log, conf) == []
    put(conf, f'"{log} {BLOCK}')  # an unbalanced quote
    assert rotates(log, conf) == [str(conf)]
    os.mkfifo(tmp_path / "fifo")
    put(conf, f"include {tmp_path}/fifo\ninclude {tmp_path}\n")
    assert rotates(log, conf) == []
    assert rotates(log, tmp_path) == []


def test_rotation_files_that_cannot_be_read(folder: Path) -> None:
    conf = put(folder / "conf", f"include {folder}/d\ninclude {folder}/e\n")
    put(folder / "d/secret", "", 0)
    put(folder / "d/two", f"{folder}/log {BLOCK}")
    (folder / "e").mkdir(mode=0)
    with as_nobody():
        look = rotation.rotates(str(folder / "log"), str(conf))
    assert look.found == [f"{folder}/d/two"]
    assert look.unread == [
        f"{folder}/d/secret: Permission denied", f"{folder}/e: Permission denied",
    ]  # fmt: skip
    (folder / "e").chmod(0o700)


def logs_of_logrotate(conf: Path, folder: Path) -> set[str]:
    """The logs in a folder that the real logrotate would look at."""
    command = ["logrotate", "-d", "-s", "/dev/null", str(conf)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    named = re.findall(r"^considering log (.*)$", done.stderr, re.MULTILINE)
    return {os.path.basename(name) for name in named if Path(name).parent == folder}


@pytest.mark.servers
def test_logrotate_agrees(tmp_path: Path) -> None:
    """But for the last ones: of a configuration with an error it drops more."""
    folder = tmp_path / "log"
    for name in ("qpopper", "a", "b", "sp ace"):
        put(folder / name, "")
    for number, (text, names) in enumerate(ROTATION):
        conf = put(tmp_path / f"{number}.conf", fill(text, folder))
        assert ("qpopper" in logs_of_logrotate(conf, folder)) == names, text


@pytest.mark.servers
def test_logrotate_agrees_on_includes(tmp_path: Path) -> None:
    rotation_folder(tmp_path)
    for number, (lines, files) in enumerate(INCLUDES):
        conf = put(tmp_path / f"{number}.conf", lines.replace("D", f"{tmp_path}/d") + "\n")
        expected = {file.strip(".") for file in files}
        assert logs_of_logrotate(conf, tmp_path / "log") == expected, lines
