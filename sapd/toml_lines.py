"""Where in a TOML file its settings stand: for messages. Pure.

Keys are found as they are usually written, one a line; of others no line is known.
"""

import re
from typing import NamedTuple

_HEADER = re.compile(r"\s*(\[{1,2})\s*([\w.-]+)\s*\]")
_KEY = re.compile(r"\s*([\w.-]+)\s*=")


class Place(NamedTuple):
    """A setting: its table's name and number (from 0), and its key; a table's own line has none."""

    table: str
    number: int
    key: str = ""


def places(text: str) -> list[tuple[int, Place]]:
    """Each line (from 1) that begins a table or sets something, in order."""
    found: list[tuple[int, Place]] = []
    table, numbers = "", {"": 0}
    for line, row in enumerate(text.split("\n"), start=1):
        if header := _HEADER.match(row):
            table = header[2]
            is_list = header[1] == "[["
            numbers[table] = numbers.get(table, -1) + 1 if is_list else 0
            found.append((line, Place(table, numbers[table])))
        elif setting := _KEY.match(row):
            inner, _, key = setting[1].rpartition(".")
            place = Place(inner, 0, key) if inner else Place(table, numbers[table], key)
            found.append((line, place))
    return found


def line_of(text: str, place: Place) -> int | None:
    """The line of a setting, or else of its table; None if neither is found."""
    lines = {place: line for line, place in reversed(places(text))}
    return lines.get(place) or lines.get(place._replace(key=""))
