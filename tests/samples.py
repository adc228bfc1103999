"""The sample lines in tests/logs: one folder a format, one JSON object a line.

`line` is the log line (bytes that are not UTF-8 are lone surrogates), `event`, `user` and `ip` what
it means; rows of one `run` and `format` (the syslog template) are one log, in order.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sapd.recogniser import Event, Recogniser

LOGS = Path(__file__).with_name("logs")
STRANGERS = LOGS / "strangers"
Row = dict[str, Any]

LEFT_OUT = {"patched"}
"""Variants that a format leaves out: qpopper's lines of a third party's patch (qpopper-patched),
and popa3d's, whose address is the connect's and not the one that the patch appends."""


def folders() -> list[str]:
    """The formats that have samples."""
    return sorted(file.parent.name for file in LOGS.glob("*/samples.jsonl"))


def rows(name: str) -> list[Row]:
    """All samples of a format, in the order of the file."""
    text = (LOGS / name / "samples.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.split("\n") if line]


def strangers() -> list[Row]:
    """Lines of other programs."""
    return [
        json.loads(line)
        for file in sorted(STRANGERS.glob("*.jsonl"))
        for line in file.read_text(encoding="utf-8").split("\n")
        if line
    ]


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
