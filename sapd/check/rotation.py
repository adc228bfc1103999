"""Who else shortens a log: logrotate."""

from __future__ import annotations

import os
import re
import shlex

from sapd.check.look import Look, fits

_TABOO = [  # logrotate(8), "tabooext"; .bak and .dpkg-tmp stand in the program only (3.21)
    ",v", ".bak", ".cfsaved", ".disabled", ".dpkg-bak", ".dpkg-del", ".dpkg-dist", ".dpkg-new",
    ".dpkg-old", ".dpkg-tmp", ".rhn-cfg-tmp-*", ".rpmnew", ".rpmorig", ".rpmsave", ".swp",
    ".ucf-dist", ".ucf-new", ".ucf-old", "~",
]  # fmt: skip
_SCRIPTS = {"prerotate", "postrotate", "preremove", "firstaction", "lastaction"}


def rotates(path: str, conf: str = "/etc/logrotate.conf") -> Look:
    """The configuration files of logrotate, `conf` and what it includes, that name this log.

    By its name, by wildcards, or through a symbolic link among its folders; a log that is a
    symbolic link itself is never rotated. A file that logrotate heeds not for its owner or mode,
    or for an error, counts all the same: the next chmod brings it back.
    """
    look = Look()
    _logrotate(look, conf, path, ["*" + ending for ending in _TABOO], set())
    return look


def _logrotate(look: Look, file: str, path: str, taboo: list[str], looked_at: set[str]) -> None:
    """Read one file as logrotate 3.21 does (measured with `logrotate -d`)."""
    if file in looked_at:
        return
    looked_at.add(file)
    script = block = False
    names = ""
    for line in look.text(file).split("\n"):
        first = (line.split() or ["#"])[0]
        if script:
            script = first != "endscript"
        elif first.startswith("#"):
            continue
        elif names == "" and first in _SCRIPTS:
            script = True
        elif names == "" and first[0].isalpha():  # obeyed inside a block, too
            _directive(look, line.strip(), path, taboo, looked_at)
        elif block:
            block = first != "}"
        else:
            names += line + " "
            if "{" in line:
                names, _, rest = names.partition("{")
                if file not in look.found and _names(names, path):
                    look.found.append(file)
                names, block = "", "}" not in rest


def _directive(look: Look, line: str, path: str, taboo: list[str], looked_at: set[str]) -> None:
    key, _, value = re.sub(r"[\s=]+", " ", line, count=1).partition(" ")
    if key in ("tabooext", "taboopat"):
        if not value.startswith("+"):
            taboo.clear()
        before = "*" if key == "tabooext" else ""
        taboo += [before + word for word in re.split(r"[\s,]+", value.lstrip("+ \t")) if word]
    elif key == "include":
        place = os.path.join("/", value)
        if not os.path.isdir(place):
            _logrotate(look, place, path, taboo, looked_at)
            return
        for name in look.names(place):
            if not any(fits(pattern, name) for pattern in taboo):
                _logrotate(look, os.path.join(place, name), path, taboo, looked_at)


def _names(text: str, path: str) -> bool:
    """Whether a list of file names, quoted or with wildcards, names the log."""
    try:
        words = shlex.split(text)
    except ValueError:
        words = re.sub(r"[\"'\\]", " ", text).split()
    logs = {os.path.abspath(path), os.path.realpath(path)}
    for word in words:
        if not word.startswith("/") or "\0" in word:
            continue
        folder, name = os.path.split(os.path.normpath(word.replace("[^", "[!")))
        for pattern in {os.path.join(folder, name), os.path.join(os.path.realpath(folder), name)}:
            if any(fits(pattern, log) for log in logs):
                return True
    return False
