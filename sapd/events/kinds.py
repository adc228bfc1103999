"""The kinds of line that a log's formats know, and the texts by which such lines are found."""

from collections.abc import Container, Sequence
from functools import cached_property
from typing import NamedTuple

from sapd.events import formats
from sapd.events.formats import Format, Line

_CONTEXT = ("connect", "cut")  # events that say something about later lines


class Cutting(NamedTuple):
    """A format whose logger cuts: from `at` bytes on, and the kinds of message that are cut."""

    format: Format
    at: int
    heads: list[Line]


class Kinds:
    """What the formats of these names know; loaded when it is asked for, most minutes have no line.

    Names, directory and programs are those of `formats.chosen`. `needles` are only those of the
    events in `wanted`, and of those that they depend on. Raises `SapdError` 78 if a format can't be
    loaded.
    """

    def __init__(
        self,
        names: Sequence[str],
        directory: str | None,
        programs: Sequence[str],
        wanted: Container[str],
    ) -> None:
        """Load nothing yet."""
        self._asked = (names, directory, programs)
        self._wanted = wanted

    @cached_property
    def formats(self) -> list[Format]:
        """The formats, in the order of the names."""
        return formats.chosen(*self._asked)

    @cached_property
    def every(self) -> list[tuple[Format, Line]]:
        """All kinds of line."""
        return [(format, kind) for format in self.formats for kind in format.lines]

    @cached_property
    def _by_needle(self) -> dict[bytes, list[int]]:
        """Each needle's places in `every`."""
        found: dict[bytes, list[int]] = {}
        for place, (_, kind) in enumerate(self.every):
            for needle in kind.needles:
                found.setdefault(needle, []).append(place)
        return found

    @cached_property
    def needles(self) -> dict[bytes, bool]:
        """The texts to look for, and whether lines with one affect what later ones mean."""
        found: dict[bytes, bool] = {}
        in_turn = ("cut", "logout") if "logout" in self._wanted else ("cut",)
        for needle, places in self._by_needle.items():
            kinds = [self.every[place] for place in places]
            if any(kind.event in self._wanted or kind.event in _CONTEXT for _, kind in kinds):
                found[needle] = any(of.joins or kind.event in in_turn for of, kind in kinds)
        return {
            needle: any(found[longer] for longer in found if needle in longer)
            for needle in found
            if not any(other in needle for other in found if other != needle)
        }

    @cached_property
    def cutting(self) -> list[Cutting]:
        """The formats whose logger cuts long messages."""
        return [
            Cutting(format, format.cut_at, [kind for kind in format.lines if kind.event == "cut"])
            for format in self.formats
            if format.cut_at is not None
        ]

    def at(self, text: bytes) -> list[tuple[Format, Line]]:
        """The kinds of which a text holds a needle, in their order."""
        found: set[int] = set()
        for needle, places in self._by_needle.items():
            if needle in text:
                found.update(places)
        return [self.every[place] for place in sorted(found)]
