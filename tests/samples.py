"""The sample lines in tests/logs: one folder a format, in two kinds of file.

`samples.log` is kept by hand: above each line stands what it means, `# login ADDRESS ACCOUNT`,
`# logout ADDRESS ACCOUNT` (`-` where it names no address), or `# nothing`; other lines with # are
remarks. Each line is a log of its own.

`samples.jsonl` was captured: one JSON object a line. `line` is the log line (bytes that are not
UTF-8 are lone surrogates), `event`, `user` and `ip` what it means; rows of one `run` and `format`
(the syslog template) are one log, in order.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sapd.events.recogniser import Event, Recogniser

LOGS = Path(__file__).with_name("logs")
STRANGERS = LOGS / "strangers"
Row = dict[str, Any]

LEFT_OUT = {"patched"}
"""Variants that a format leaves out: qpopper's lines of a third party's patch (qpopper-patched),
and popa3d's, whose address is the connect's and not the one that the patch appends."""

_MEANING = re.compile(r"# (?:(?P<event>login|logout) (?P<ip>\S+) (?P<user>.+)|nothing)")


def folders() -> list[str]:
    """The formats that have samples."""
    return sorted({file.parent.name for file in LOGS.glob("*/samples.*")})


def rows(name: str) -> list[Row]:
    """All samples of a format, in the order of its files."""
    captured, by_hand = (LOGS / name / f"samples.{kind}" for kind in ("jsonl", "log"))
    found = [json.loads(line) for line in _lines(captured)]
    meaning = None
    for line in _lines(by_hand):
        if not line.startswith("#"):
            assert meaning is not None, f"{by_hand}: what does this line mean? {line}"
            found.append({"line": line, "daemon": name, "format": "by hand", **_row(meaning)})
        meaning = _MEANING.fullmatch(line)
    return found


def _lines(file: Path) -> list[str]:
    text = file.read_text(encoding="utf-8", errors="surrogateescape") if file.exists() else ""
    return [line for line in text.split("\n") if line]


def _row(meaning: re.Match[str]) -> Row:
    ip = meaning["ip"]
    event = meaning["event"] or "other"
    return {"event": event, "user": meaning["user"], "ip": None if ip == "-" else ip}


def strangers() -> list[Row]:
    """Lines of other programs."""
    return [json.loads(line) for file in sorted(STRANGERS.glob("*.jsonl")) for line in _lines(file)]


def logs(name: str) -> Iterator[list[Row]]:
    """The samples of a format, as the logs that they are parts of."""
    found: dict[object, list[Row]] = {}
    for row in rows(name):
        part = (row.get("run", row["daemon"]), row["format"])
        found.setdefault(part if "session" in row else id(row), []).append(row)
    yield from found.values()


def data(row: Row) -> bytes:
    """The line's bytes, newline included."""
    line: str = row["line"]
    return line.encode("utf-8", "surrogateescape") + b"\n"


def event_of(recogniser: Recogniser, line: bytes) -> Event | None:
    """The event that a line is, None if it is none, for whatever reason."""
    found = recogniser.recognise(line)
    return found if isinstance(found, Event) else None
