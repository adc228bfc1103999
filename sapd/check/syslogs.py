"""Who else writes a log: syslog daemons, for every local user."""

from __future__ import annotations

import os
import re

from sapd.check.look import Look, fits

SYSLOG_CONFS = ("etc/rsyslog.conf", "etc/syslog-ng/syslog-ng.conf", "etc/syslog.conf")


def syslog_sources(path: str, confs: tuple[str, ...]) -> Look:
    """The configuration files of rsyslog, syslog-ng or syslogd that write to this log.

    Whatever they write comes from a socket that every local user may write to. A name counts
    where it stands: in a selector's line, an action, a destination, or a template (`%property%`
    and `$MACRO` stand for any name); not in an input, where the log is only read.
    """
    look = Look()
    looked_at: set[str] = set()
    for conf in confs:
        _syslog(look, conf, path, looked_at)
    return look


def _syslog(look: Look, file: str, path: str, looked_at: set[str]) -> None:
    if file in looked_at:
        return
    looked_at.add(file)
    text = re.sub(
        r"""("(?:\\.|[^"\\\n])*"|'[^'\n]*')|(?<!\S)(?:/\*.*?\*/|#[^\n]*)""",
        lambda found: found[1] or " ",
        look.text(file),
        flags=re.DOTALL,
    )
    if _writes(text, path):
        look.found.append(file)
    for include in re.finditer(
        r"""^\s*\$IncludeConfig\s+(\S+)|\binclude\s*\([^)]*?\bfile\s*=\s*["']([^"'\n]+)"""
        r"""|^\s*@include\s+["']?([^"'\s]+)""",
        text,
        flags=re.IGNORECASE | re.MULTILINE,
    ):
        wanted = os.path.join(os.path.dirname(file), include[1] or include[2] or include[3])
        if "\0" in wanted:
            continue
        folder, name = (wanted, "*") if os.path.isdir(wanted) else os.path.split(wanted)
        if re.search(r"[*?\[]", name):
            for found in look.names(folder):
                if fits(name, found):
                    _syslog(look, os.path.join(folder, found), path, looked_at)
        else:
            _syslog(look, wanted, path, looked_at)


def _writes(text: str, path: str) -> bool:
    reads = (
        r"\binput\s*\([^)]*\)|\bsource\b[\s\w.-]*\{.*?\}\s*;|^\s*\$(?!outchannel|template)[^\n]*"
    )
    text = re.sub(reads, " ", text, flags=re.DOTALL | re.MULTILINE | re.IGNORECASE)
    logs = {os.path.abspath(path), os.path.realpath(path)}
    for quoted, bare in re.findall(
        r"""["'](/[^"'\n]*)["']|(?<![^\s=,(-])(/[^\s"';,()]*)""", text.replace("\0", " ")
    ):
        name = quoted or bare
        parts = re.split(r"%[^%]*%|\$\{[^}]*\}|\$\w+", name)
        if len(parts) == 1 and os.path.realpath(name) in logs:
            return True
        pattern = "[^/]*".join(map(re.escape, parts))
        if any(re.fullmatch(pattern, log) for log in logs):
            return True
    return False
