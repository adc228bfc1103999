"""A TOML file, read into its top table, with errors that name line and remedy."""

import codecs
import errno
import os
import re
import stat
import tomllib
from typing import Any

from sapd import errors, settings
from sapd.toml_table import Table


def read(
    path: str,
    examples: settings.Examples = settings.EXAMPLES,
    remedy: str = "name the configuration with -c",
) -> Table:
    """The file's top table; `examples` show its settings.

    Raises `SapdError` 78, or 77 if it may not be read. The `remedy` is for what is no such file.
    """
    text = _text(path, remedy)
    return Table(path, "", _parsed(path, text, examples), text, examples=examples)


def _text(path: str, remedy: str) -> str:
    data, status = b"", errors.BAD_CONFIG
    try:
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
        with open(path, "rb", opener=lambda name, _: os.open(name, flags)) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):  # a FIFO would be waited for
                raise OSError(errno.EINVAL, "it is not a regular file")
            data = file.read()
        if not data.startswith(codecs.BOM_UTF8):
            return data.decode("utf-8")
        reason = "begins with a byte order mark; save the file without one"
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        reason = f"line {line} is not UTF-8; save the file in UTF-8"
    except PermissionError as error:
        status, reason = errors.NO_PERMISSION, f"can't be read: {error.strerror}"
    except FileNotFoundError:
        reason = "is missing; `sapd init` makes one for this machine, or name yours with -c"
        if os.path.islink(path):
            reason = f"is a link to {os.readlink(path)}, which is missing; mend or remove the link"
    except IsADirectoryError:
        reason = f"is a folder; {remedy}"
    except OSError as error:
        reason = f"can't be read: {error.strerror}; {remedy}"
    raise errors.SapdError(status, path, reason)


def _parsed(path: str, text: str, examples: settings.Examples) -> dict[str, Any]:
    """The file's tables. What stands there twice is told all at once; of other errors the first."""
    mistakes: list[errors.SapdError] = []
    while True:
        try:
            found = tomllib.loads(text)
        except (ValueError, RecursionError) as error:
            reason, spare = _reason(text, error, examples)
            mistakes.append(errors.SapdError(errors.BAD_CONFIG, path, reason))
            if spare:  # the rest can be read without this line
                rows = text.split("\n")
                rows[spare - 1] = ""
                text = "\n".join(rows)
                continue
        if mistakes:
            raise _all(mistakes)
        return found


def _reason(text: str, error: Exception, examples: settings.Examples) -> tuple[str, int]:
    """What is wrong, and the line that may be left out to read on, 0 if there is none."""
    from sapd import toml_lines  # which only mistakes need

    at = re.search(r"\(at line (\d+), ", str(error))
    ended = "(at end of document)" in str(error)
    line = int(at[1]) if at else (text.rstrip().count("\n") + 1) * ended
    what = f"is not TOML: {str(error).partition(' (at ')[0] or 'nested too deeply'}"
    if not line:
        return what, 0
    places = dict(toml_lines.places(text))
    place = places.get(line)
    before = next((other for other in places if places[other] == place and other < line), None)
    if place is not None and before is not None:
        lines = f"appears twice (lines {before} and {line})"
        if not place.key:
            return f"[{place.table}] {lines}; put all below one of them", 0
        name = f"{place.table}.{place.key}" if place.table else place.key
        return f"{name} {lines}; keep one of them", line
    example = settings.example(place.table, place.key, examples) if place else None
    remedy = "strings stand in quotes, lists in brackets, tables begin with [name] or [[name]]"
    shown = text.split("\n")[line - 1].strip()
    return f"line {line} {what}: {shown}; {f'example: {example}' if example else remedy}", 0


def _all(mistakes: list[errors.SapdError]) -> errors.SapdError:
    first, *others = mistakes
    first.others = tuple(others)
    return first
