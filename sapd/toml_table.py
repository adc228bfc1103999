"""The tables of a TOML file, with errors that name file, key and remedy."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, NoReturn

from sapd import errors, settings
from sapd.addresses import parse_network

if TYPE_CHECKING:
    from sapd.addresses import Network

_LONGEST = 366 * 86400  # seconds
_MOST = 1_000_000_000
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds(text: str) -> float:
    """A duration such as 90s, 30m, 8h or 2d in seconds; raises ValueError."""
    found = re.fullmatch(r"(\d{1,9})\s*([smhd])", text.strip())
    duration = int(found[1]) * _UNITS[found[2]] if found else 0
    if found and not duration:
        raise ValueError(f'is "{text}"; it must be more than 0')
    if not 0 < duration <= _LONGEST:
        raise ValueError(f'is "{text}"; write a number and s, m, h or d, as "30m", up to 366d')
    return duration


class Refused(errors.SapdError):
    """A setting of a table can't be used (78)."""

    def __init__(self, table: Table, key: str, reason: str, meant: str = "") -> None:
        """Keep which one, what was `meant` by it, and the line (0: not known)."""
        self.table = table
        self.key = key
        self.meant = meant
        self.line = table.line_of(key)
        head = f"line {self.line}: " if self.line else ""
        super().__init__(errors.BAD_CONFIG, table.file, f"{head}{reason}")


class Table:
    """One table of a TOML file.

    A value that is not what a method promises is refused: `Refused` names file, line and key.
    """

    def __init__(
        self,
        file: str,
        name: str,
        values: dict[str, Any],
        text: str = "",
        number: int = 0,
        examples: settings.Examples = settings.EXAMPLES,
    ) -> None:
        """`name` is the table's, empty at the top level; of several of that name it is `number`.

        `text` is the file's, in which lines are looked for; `examples` show its settings.
        """
        self.file = file
        self._name = name
        self._values = values
        self._text = text
        self._number = number
        self._examples = examples

    def line_of(self, key: str) -> int:
        """The line in which a setting stands, or its table begins; 0 if that is not known."""
        from sapd.toml_lines import Place, line_of  # which only mistakes need

        line = line_of(self._text, Place(self._name, self._number, key))
        return line or (not self._name and line_of(self._text, Place(key, 0))) or 0

    def refuse(self, key: str, why: str, example: str | None = None) -> NoReturn:
        """Raise the error that says why a setting can't be used, with a line that could be."""
        shown = example or self._example(key)
        self._refuse(key, f"{why}{_example(why, shown)}")

    def refuse_to_remove(self, key: str, why: str) -> NoReturn:
        """The same for one that should not be there."""
        self._refuse(key, f"{why}; remove it")

    def _refuse(self, key: str, why: str, meant: str = "") -> NoReturn:
        where = f"{self._name}.{key}" if self._name else key
        raise Refused(self, key, f"{where} {why}", meant)

    def _example(self, key: str) -> str | None:
        return settings.example(self._name, key, self._examples)

    def without(self, key: str) -> None:
        """Forget a setting, as if it were not there."""
        self._values.pop(key, None)

    def pretend(self, key: str) -> bool:
        """Act as if a setting had a sound value; whether there is one."""
        shown = self._example(key)
        try:
            self._values.update(tomllib.loads(shown or ""))
        except tomllib.TOMLDecodeError:
            return False
        return self.has(key)

    @property
    def identity(self) -> int:
        """The same for all that stand for this table of the file."""
        return id(self._values)

    def has(self, key: str) -> bool:
        """Whether the setting is there."""
        return key in self._values

    def names(self) -> list[str]:
        """The settings that are there, in the file's order."""
        return [*self._values]

    def over(self, base: Table) -> Table:
        """The same with the settings of another table for those that this one lacks."""
        return self._of(self._name, {**base._values, **self._values}, self._number)

    def _of(self, name: str, values: dict[str, Any], number: int = 0) -> Table:
        return Table(self.file, name, values, self._text, number, self._examples)

    def only(self, *known: str) -> None:
        """Refuse every other key."""
        for key in self._values:
            if key in known:
                continue
            homes = [table for table in settings.homes(key, self._examples) if table != self._name]
            if homes:
                places = " or ".join(map(settings.header, homes))
                shown = settings.example(homes[0], key, self._examples)
                self._refuse(key, f"belongs {places}; example: {shown}")
            meant = _meant(key, list(known))
            shown = self._example(meant)
            why = f"is not a setting{nearest(key, list(known))}"
            self._refuse(key, f"{why}{_example(why, shown)}", meant)

    def _get(self, key: str, kind: type, what: str) -> Any:
        value = self._values.get(key)
        if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
            self.refuse(key, f"must be {what}")
        return value

    def text(self, key: str, default: str | None = None) -> str:
        """A text; without a default the setting must be there."""
        value = self._get(key, str, "a quoted string")
        if value is None:
            value = default
        if value is None:
            self.refuse(key, "is missing")
        return str(value)

    def path(self, key: str, default: str | None = None) -> str:
        """A path, absolute, or relative to the file's folder."""
        text = self.text(key, default)
        try:
            usable = text != "" and b"\0" not in os.fsencode(text)
        except UnicodeEncodeError:
            usable = False
        if not usable:
            self.refuse(key, "is not a path that this system can name")
        folder = os.path.dirname(os.path.abspath(self.file))
        return os.path.normpath(os.path.join(folder, text))

    def one_of(self, key: str, known: Collection[str], default: str | None = None) -> str:
        """One of the known words."""
        word = self.text(key, default)
        if word not in known:
            self.refuse(key, f'is "{word}"{nearest(word, list(known))}')
        return word

    def seconds(self, key: str, default: str | None = None) -> float:
        """A duration, in seconds."""
        try:
            return seconds(self.text(key, default))
        except ValueError as error:
            self.refuse(key, str(error))

    def count(self, key: str, least: int = 1) -> int | None:
        """A whole number; None if the setting is not there."""
        value: int | None = self._get(key, int, "a whole number")
        if value is not None and value < least:
            self.refuse(key, f"is {value}; it must be at least {least}")
        if value is not None and value > _MOST:
            self.refuse(key, f"is too large; it must be at most {_MOST}")
        return value

    def flag(self, key: str, *, default: bool = False) -> bool:
        """True or false."""
        value = self._values.get(key, default)
        if not isinstance(value, bool):
            self.refuse(key, "must be true or false")
        return value

    def texts(self, key: str, default: tuple[str, ...] | None = None) -> tuple[str, ...]:
        """A list of texts."""
        value = self._get(key, list, "a list of quoted strings")
        if value is None:
            if default is None:
                self.refuse(key, "is missing")
            return default
        if not all(isinstance(item, str) for item in value):
            self.refuse(key, "must be a list of quoted strings")
        return tuple(value)

    def networks(self, key: str, default: tuple[str, ...] | None = None) -> tuple[Network, ...]:
        """A list of networks."""
        found: list[Network] = []
        for text in self.texts(key, default):
            try:
                found.append(parse_network(text))
            except ValueError as error:
                self._refuse_network(key, text, error)
        return tuple(found)

    def _refuse_network(self, key: str, text: str, error: ValueError) -> NoReturn:
        try:
            meant = parse_network(text, strict=False)
        except ValueError:
            self.refuse(key, f'has "{text}": {error}; networks look like 192.0.2.0/24')
        self._refuse(key, f'has "{text}", which has host bits set; write "{meant}"')

    def table(self, key: str) -> Table:
        """A table in this one; empty if it is not there."""
        value = self._get(key, dict, f"a table, as [{key}]")
        return self._of(key, value or {})

    def tables(self, key: str) -> list[Table]:
        """A list of tables in this one."""
        value = self._get(key, list, f"one or more tables, as [[{key}]]") or []
        if not all(isinstance(item, dict) for item in value):
            self.refuse(key, f"must be one or more tables, as [[{key}]]")
        return [self._of(key, item, number) for number, item in enumerate(value)]


def _example(why: str, shown: str | None) -> str:
    if not shown:
        return ""
    return f" Example: {shown}" if why.endswith("?") else f"; example: {shown}"


def nearest(word: str, known: list[str], cutoff: float = 0.5) -> str:
    """The known word that was meant, perhaps, as the end of a message; else all of them.

    How alike the two must be is the `cutoff`, from 0 to 1.
    """
    near = _meant(word, known, cutoff)
    return f'; did you mean "{near}"?' if near else f"; known are {', '.join(sorted(known))}"


def _meant(word: str, known: list[str], cutoff: float = 0.5) -> str:
    from difflib import get_close_matches

    return next(iter(get_close_matches(word, known, 1, cutoff)), "")
