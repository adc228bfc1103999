"""journalctl, systemd's own reader of the journal, as a source of entries.

It takes the matches of journalctl(1), and from where on; its JSON is that of systemd's
JOURNAL_EXPORT_FORMATS. What journald itself says about dropped messages comes, too.
"""

import json
import time
from collections.abc import Generator, Sequence
from typing import Any

from sapd import child, errors
from sapd.reading.journal_matches import name

FIELDS = (
    *("MESSAGE", "SYSLOG_IDENTIFIER", "SYSLOG_PID", "_PID", "_HOSTNAME"),
    *("_SOURCE_REALTIME_TIMESTAMP", "_LINE_BREAK", "_STREAM_ID", "_TRANSPORT", "MESSAGE_ID"),
)
"""What is asked for; journalctl adds __CURSOR and __REALTIME_TIMESTAMP."""

# What journald says when it has dropped messages by its rate limit (sd-messages.h,
# SD_MESSAGE_JOURNAL_DROPPED); "driver" is the transport of nobody but itself.
DROPPED_ID = "a596d6fe7bfa4994828e72309e95d61e"
DROPPED = ("_TRANSPORT=driver", f"MESSAGE_ID={DROPPED_ID}")

_SILENT = 10.0  # seconds without a word, after which journalctl hangs
_LONGEST = 1024 * 1024  # bytes of one entry in JSON, of which the chosen fields need 150,000


class Journalctl:
    """What fits the matches; `unfinished` where the time was up.

    After `deadline` (seconds of `time.monotonic`) it ends with the block that it is in.
    """

    def __init__(self, matches: Sequence[str], options: Sequence[str], deadline: float) -> None:
        """Start nothing yet; `options` are further ones of journalctl's."""
        self._name = name(matches)
        self._command = [
            *("journalctl", "--quiet", "--no-pager", "--output=json"),
            *(f"--output-fields={','.join(FIELDS)}", *options),
        ]
        self._matches = [*matches, "+", *DROPPED]
        self._deadline = deadline
        self.unfinished = False

    def entries(self, start: str) -> Generator[dict[str, Any], None, None]:
        """The entries from there on: `start` is an option of journalctl's.

        Raises `SapdError` 66.
        """
        given, rest = 0, b""
        try:
            with child.Running([*self._command, start, *self._matches]) as running:
                for block in running.blocks(_SILENT):
                    *lines, rest = (rest + block).split(b"\n")
                    for line in lines:
                        yield self._parsed(line)
                        given += 1
                    if len(rest) > _LONGEST:
                        raise self._failed("an entry is endless")
                    if given > 1 and time.monotonic() > self._deadline:
                        self.unfinished = True
                        return
                status, said = running.end(_SILENT)
        except TimeoutError:
            raise self._failed(f"journalctl says nothing for {_SILENT:.0f} s") from None
        except OSError as error:
            why = f"journalctl can't be started: {error.strerror or error}"
            raise self._failed(why) from None
        if status < 0:
            raise self._failed(f"journalctl was ended by signal {-status}")
        if status > 0:
            words = said.decode(errors="replace").strip().splitlines()
            why = words[-1] if words else f"journalctl ends with status {status}"
            if "permission" in why.lower():
                why = f"{why.rstrip('.')}; run it as root, or in the group systemd-journal"
            raise self._failed(why)

    def _parsed(self, line: bytes) -> dict[str, Any]:
        try:
            entry = json.loads(line)
            if isinstance(entry["__CURSOR"], str):
                return dict(entry)
        except (ValueError, LookupError, TypeError, RecursionError):
            pass
        raise self._failed(f"journalctl writes no JSON: {line[:80].decode(errors='replace')}")

    def _failed(self, why: str) -> errors.SapdError:
        return errors.SapdError(errors.LOG_UNREADABLE, self._name, f"can't be read: {why}")
