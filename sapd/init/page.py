"""The text of a configuration in which each choice has its reason. Pure."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Sequence
from typing import NamedTuple

_WIDTH = 78
_HEAD = (
    "Written by `sapd init`, which looked at this machine: each choice has its reason above it. "
    "Change what differs, then try `sapd check` and `sapd run -n`. "
    "`sapd init --settings` prints an example of every setting."
)


class Setting(NamedTuple):
    """One setting and its reason; one that is not `used` stands behind a #, as a proposal."""

    key: str
    value: str | bool | int | tuple[str, ...]
    why: str = ""
    used: bool = True


class Section(NamedTuple):
    """A table, as `[access]` or `[[log]]` (empty: the top level), and why it is what it is."""

    head: str
    why: str
    settings: Sequence[Setting]


def page(sections: Iterable[Section]) -> str:
    """The file. Everything in the sections is printable."""
    return "\n".join([_comment(_HEAD), *map(_section, sections)])


def _section(section: Section) -> str:
    head = f"{section.head}\n" if section.head else ""
    return _comment(section.why) + head + "".join(map(_setting, section.settings))


def _setting(setting: Setting) -> str:
    mark = "" if setting.used else "#"
    return f"{_comment(setting.why)}{mark}{setting.key} = {_value(setting.value)}\n"


def _value(value: str | bool | int | tuple[str, ...]) -> str:
    # JSON's texts are TOML's, but for what is escaped by two surrogates.
    return json.dumps(value, ensure_ascii=False)


def _comment(text: str) -> str:
    lines = textwrap.wrap(text, _WIDTH, break_long_words=False, break_on_hyphens=False)
    return "".join(f"# {line}\n" for line in lines)
