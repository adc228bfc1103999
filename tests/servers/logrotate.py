"""The real logrotate with Debian's own configuration, on private files."""

import re
import subprocess
from pathlib import Path

from tests.impossible import impossible

MAIN = Path("/etc/logrotate.conf")
RSYSLOG = Path("/etc/logrotate.d/rsyslog")


def rotate(folder: Path, configuration: str, may_say: str = "") -> None:
    """Rotate now, whatever the day; logrotate's state lies in `folder`.

    It must be silent, but for what fits the regular expression `may_say`.
    """
    conf = folder / "logrotate.conf"
    conf.write_text(configuration)
    conf.chmod(0o644)
    command = ["logrotate", "--force", "--state", str(folder / "logrotate.state"), str(conf)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    said = re.sub(may_say, "", done.stderr) if may_say else done.stderr
    assert (done.returncode, said) == (0, ""), done.stderr


def debians(log: Path, hang_up: str, add: str = "", drop: str = "") -> str:
    """What Debian ships for its syslog files, for `log` alone.

    `hang_up` is the command that makes the syslog daemon open its files anew; the directives
    `add` come last, those that fit the regular expression `drop` go.
    """
    for file in (MAIN, RSYSLOG):
        if not file.exists():
            impossible("Debian's configuration of logrotate", f"no {file}")
    main = _put(r"^include .*$", "", MAIN.read_text())
    block = _put(r"\A[^{]*", f"{log}\n", RSYSLOG.read_text())
    block = _put(r"/usr/lib/rsyslog/rsyslog-rotate", hang_up, block)
    if drop:
        block = _put(rf"^\s*(?:{drop})\n", "", block)
    return main + _put(r"^\s*}", f"\t{add}\n}}", block)


def _put(pattern: str, new: str, text: str) -> str:
    changed, count = re.subn(pattern, lambda _: new, text, flags=re.MULTILINE)
    assert count > 0, (pattern, text)
    return changed
