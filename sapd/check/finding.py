"""What a check finds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; `status` is 0 if it is sound, else the fitting exit status."""

    status: int
    text: str


class Note(Finding):
    """What the administrator should know, though nothing need be wrong."""

    def __init__(self, text: str) -> None:
        """Of status 0."""
        super().__init__(0, text)
