"""What earlier lines of a log say about later ones, from pass to pass."""

from typing import NamedTuple

DAY = 86400
"""Seconds after which a half-seen session is forgotten."""

MINUTES = 10
"""Later minutes in which a writer must have logged before a cut message of its is forgotten."""

ANYONE = ""
"""The writer that stands for all, in `Context.cut`."""


class Doubt(NamedTuple):
    """How long the rest of a message that a writer's logger has cut may still come.

    It may stand in `left` more bytes of the writer's messages. courierlogger holds it back no
    longer than syslogd stands still: the doubt also ends when the writer has logged in `MINUTES`
    later minutes. `minutes` of them are over; `minute`, in the epoch, was the last.
    """

    left: int
    minutes: int = 0
    minute: int = 0

    def behind(self, length: int, minute: int) -> "Doubt | None":
        """What is left of it behind a message of `length` bytes in that minute; None if it ends."""
        left, minutes = self.left - length, self.minutes + (minute > self.minute)
        if left <= 0 or minutes >= MINUTES:
            return None
        return Doubt(left, minutes, max(minute, self.minute))


class Context:
    """What earlier lines of a log say about later ones.

    `connects` are half-seen sessions, {"host program[pid]": (address, UTC epoch seconds)}.
    `cut` has each writer whose logger has cut a message, {"host program": Doubt}; the writer
    `ANYONE` stands for all of them. `frame` is that of the log (see `framing`), "" if it could not
    be told yet; with None each line is taken for a log of its own. `unframed` says that lines of
    interest had no frame that counts, and that a person was told. `containers` are those that
    print lines of their own, with the time when one was seen (UTC epoch seconds).
    """

    def __init__(
        self,
        connects: dict[str, tuple[str, float]] | None = None,
        cut: dict[str, Doubt] | None = None,
        frame: str | None = None,
        *,
        unframed: bool = False,
        containers: dict[str, float] | None = None,
    ) -> None:
        """By default, nothing was said."""
        self.containers = containers or {}
        self.unframed = unframed
        self.connects = connects or {}
        self.cut = cut or {}
        self.frame = frame

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        """Compare what the two say."""
        return isinstance(other, Context) and vars(self) == vars(other)

    def expire(self, now: float) -> None:
        """Drop what is more than a day away from `now`, in either direction."""
        self.containers = {
            name: time for name, time in self.containers.items() if abs(now - time) <= DAY
        }
        self.connects = {
            key: (address, time)
            for key, (address, time) in self.connects.items()
            if abs(now - time) <= DAY
        }
