"""`sapd match`: what each line of a log means, the tool for "it does not work"."""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

import click
from click.shell_completion import CompletionItem

from sapd import config, decision, defaults, errors, messages, timestamps
from sapd.cli.options import Command, common, config_was_named, say
from sapd.events import formats, frames
from sapd.events.context import DAY
from sapd.events.framing import Framing
from sapd.events.recogniser import Event, Recogniser, Rejection
from sapd.reading import excerpt, journal, journal_matches
from sapd.relay import Rules
from sapd.toml_table import seconds

Found = Event | Rejection | None

_KINDS = ("login", "logout", "connect", "nothing")
_COLOURS = {"login": "green", "logout": "cyan", "connect": "yellow"}
_MOST_PROGRAMS = 9  # that are named
_LINES = 1000  # that are looked at together, to find their frame
_BIG = 8 * 1024 * 1024  # bytes; reading less takes no patience


class _Show(NamedTuple):
    """What is shown of a line, and of which lines."""

    hits: bool
    misses: bool
    explain: bool
    as_json: bool


def _complete_format(context: click.Context, _: click.Parameter, typed: str) -> list[Any]:
    path = context.params.get("config_path") or context.find_root().params.get("config_path")
    try:
        directory = config.load(path or defaults.CONFIG).formats_directory
    except errors.SapdError:
        directory = defaults.FORMATS_DIRECTORY
    names = [formats.AUTO, *formats.names(directory)]
    return [CompletionItem(name) for name in names if name.startswith(typed)]


@click.command("match", cls=Command)
@click.argument("file", metavar="[FILE|-]", required=False, type=click.Path())
@click.option(
    "--format",
    "names",
    metavar="F",
    multiple=True,
    shell_complete=_complete_format,
    help="Format to try (repeatable).",
)
@click.option(
    "--journal",
    "matches",
    metavar="FIELD=VALUE",
    multiple=True,
    help="Read the last day's journal.",
)
@click.option("--hits", is_flag=True, help="Show the lines that mean something.")
@click.option("--misses", is_flag=True, help="Show the lines that mean nothing.")
@click.option("--explain", is_flag=True, help="Say of every line that is nothing why it is.")
@click.option("--summary", is_flag=True, help="Print the counts only.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
@common
def match_command(
    *,
    file: str | None,
    names: tuple[str, ...],
    matches: tuple[str, ...],
    hits: bool,
    misses: bool,
    explain: bool,
    summary: bool,
    as_json: bool,
    config_path: str,
    verbose: int,
) -> None:
    """Show what each line of a log means, and why it is nothing.

    Without FILE: standard input, or if that is a terminal, the last 10,000 lines of each log in the
    configuration. With --journal, each entry of the last day that fits; it takes what journalctl
    takes. Without --format, the formats are those of the configuration, or all where there is none.

    On a terminal only lines that mean something are shown, and the others counted; with --explain,
    or for a pipe, all are.
    """
    others = {"--json": as_json, "--explain": explain, "--hits": hits, "--misses": misses}
    _refuse_contradictions(file, matches, others if summary else {})
    if not (hits or misses or summary):
        hits, misses = True, as_json or explain or not sys.stdout.isatty()
    show = _Show(hits, misses, explain, as_json)
    settings = _settings(config_path)
    chosen = _named(names, settings)
    for source in _sources(settings, file, matches):
        log = source.log._replace(formats=chosen or source.log.formats)
        recogniser = _recogniser(log, settings)
        _tell(_Source(log, source.entries, source.title), recogniser, show, settings.rules)


def _recogniser(log: config.Log, settings: _Settings) -> Recogniser:
    clock = timestamps.Clock(time.time(), log.zone)
    folder = settings.directory
    return Recogniser(log.formats, clock, folder, programs=log.programs, only=log.frame)


def _refuse_contradictions(
    file: str | None, matches: tuple[str, ...], beside_summary: Mapping[str, bool]
) -> None:
    for name, is_given in beside_summary.items():
        if is_given:
            raise click.UsageError(f"--summary and {name} exclude each other.")
    if file == "":
        raise click.BadParameter(
            "is empty; name a file, or - for standard input.", param_hint="FILE"
        )
    if file is not None and matches:
        raise click.UsageError("A file and --journal exclude each other.")
    if matches and (objection := journal_matches.objection_to(matches)) is not None:
        raise click.BadParameter(objection, param_hint="--journal")


def _tell(source: _Source, recogniser: Recogniser, show: _Show, rules: Rules) -> None:
    """Show a log's lines, then the counts."""
    if source.title and not show.as_json:
        say(source.title, bold=True)
    counts = _Counts()
    for found, line in source.entries(recogniser, not (show.hits and sys.stdout.isatty())):
        counts.add(found, line)
        if show.hits if isinstance(found, Event) else show.misses:
            why = _why(found, line, recogniser, rules) if show.explain else ""
            if show.as_json:
                row = {
                    "line": counts.lines,
                    **_fields(found),
                    **({"why": why or None} if show.explain else {}),
                }
                messages.write(json.dumps({**row, "text": _text(line), "log": source.log.path}))
            else:
                _say_line(counts.lines, found, line, why)
        if messages.unwritable():
            return
    if not show.as_json:
        for text in counts.told(recogniser, of_journal=bool(source.log.journal)):
            say(text)


class _Settings(NamedTuple):
    """What of the configuration matters here, or what holds where there is none."""

    logs: tuple[config.Log, ...]
    directory: str
    rules: Rules


def _settings(config_path: str) -> _Settings:
    try:
        settings = config.load(config_path)
    except errors.SapdError:
        if config_was_named() or os.path.exists(config_path):
            raise
        return _Settings((), defaults.FORMATS_DIRECTORY, Rules(seconds(defaults.WINDOW)))
    return _Settings(settings.logs, settings.formats_directory, settings.rules)


def _named(names: tuple[str, ...], settings: _Settings) -> tuple[str, ...]:
    known = [formats.AUTO, *formats.names(settings.directory)] if names else []
    for name in names:
        if name not in known:
            text = f'"{name}" is none of {", ".join(known)}.'
            raise click.BadParameter(text, param_hint="--format")
    return names


class _Source(NamedTuple):
    """A log, and the way to its entries: each with what it says, and the line that it is.

    The function is told whether nothing else is on the screen. `title` is said before.
    """

    log: config.Log
    entries: Callable[[Recogniser, bool], Iterator[tuple[Found, bytes]]]
    title: str = ""


def _sources(settings: _Settings, file: str | None, matches: tuple[str, ...]) -> Iterator[_Source]:
    usual = settings.logs[0] if settings.logs else config.Log("-", (formats.AUTO,))
    if matches:
        log = usual._replace(path=journal_matches.name(matches), journal=matches)
        yield _Source(log, _of_journal(matches))
    elif file is not None or not sys.stdin.isatty():
        path = file or "-"
        here = [log for log in settings.logs if log.is_at(path) or log.is_at(os.path.abspath(path))]
        log = here[0] if here and path != "-" else usual
        log = log._replace(path=path, journal=())
        yield _Source(log, _of_file(log))
    elif settings.logs:
        yield from map(_end_of, settings.logs)
    else:
        raise click.UsageError("Name a file, or - for standard input: no log is configured.")


def _end_of(log: config.Log) -> _Source:
    if log.journal:
        return _Source(log, _of_journal(log.journal), f"{log.path}: the last day's entries")
    file = log.file(time.time())
    title = f"{file}: the last {excerpt.LAST:,} lines"
    return _Source(
        log, lambda recogniser, _: _each(recogniser, log, excerpt.last_lines(file)), title
    )


def _each(
    recogniser: Recogniser, log: config.Log, lines: Iterator[bytes]
) -> Iterator[tuple[Found, bytes]]:
    """What each line says in the log's frame; where that can't be told, what it would say alone.

    Standard input is taken line by line, as it comes.
    """
    framing = Framing(recogniser.formats, None, log.frame, recogniser.context.containers)
    most = 1 if log.path == "-" else _LINES
    while block := b"".join(islice(lines, most)):
        recogniser.context.frame = framing.of_block(block) or None
        for line in block.removesuffix(b"\n").split(b"\n"):
            yield recogniser.recognise(line + b"\n"), line + b"\n"


def _of_file(log: config.Log) -> Callable[[Recogniser, bool], Iterator[tuple[Found, bytes]]]:
    """All of it; with a progress bar if it is big, and nothing else is on the screen."""
    file = log.path

    def entries(recogniser: Recogniser, quiet: bool) -> Iterator[tuple[Found, bytes]]:
        big = file != "-" and os.path.isfile(file) and os.path.getsize(file) > _BIG
        if not (big and quiet and sys.stderr.isatty()):
            yield from _each(recogniser, log, excerpt.lines(file))
            return
        with click.progressbar(length=os.path.getsize(file), file=sys.stderr) as bar:
            progress = lambda at: bar.update(at - bar.pos)  # noqa: E731
            yield from _each(recogniser, log, excerpt.lines(file, progress))

    return entries


def _of_journal(
    matches: tuple[str, ...],
) -> Callable[[Recogniser, bool], Iterator[tuple[Found, bytes]]]:
    """The entries of the last day that fit."""

    def entries(recogniser: Recogniser, _: bool) -> Iterator[tuple[Found, bytes]]:
        for frame in journal.JournalReading(matches, None, time.time() - DAY).frames():
            yield recogniser.recognise_frame(frame), journal.as_line(frame)

    return entries


class _Counts:
    """How many lines said what, by format, and of which programs the rest are."""

    def __init__(self) -> None:
        self.lines = 0
        self._events = Counter[tuple[str, str]]()
        self._programs = Counter[bytes]()

    def add(self, found: Found, line: bytes) -> None:
        self.lines += 1
        if isinstance(found, Event):
            self._events[found.format, found.event] += 1
        else:
            frame = frames.split(line.rstrip(b"\n"))
            self._programs[b"" if frame is None else frame.program] += 1

    def told(self, recogniser: Recogniser, *, of_journal: bool) -> Iterator[str]:
        """The counts as lines."""
        by_kind = Counter(nothing=self._programs.total())
        for (_, event), number in self._events.items():
            by_kind[event] += number
        yield f"{_counted(self.lines, 'line')}: " + _kinds(by_kind, _KINDS)
        if recogniser.context.frame:
            yield f"frame {recogniser.context.frame}"
        elif self.lines and not of_journal:
            yield "frame unknown: a run believes no line; see FRAMES in sapd.toml(5)"
        for name in sorted({name for name, _ in self._events}):
            numbers = Counter({kind: self._events[name, kind] for kind in _KINDS})
            yield f"format {name}: " + _kinds(numbers, [kind for kind in _KINDS if numbers[kind]])
        if self._programs:
            yield f"ignored, by program: {self._rest()}"
        no = recogniser.unusable
        counts = {
            "with a bad address": no.address,
            "with a bad time": no.stamp,
            "cut short": no.cut,
            "torn": no.torn,
            "without an address": no.no_address,
        }
        if any(counts.values()):
            found = ", ".join(f"{number} {what}" for what, number in counts.items() if number)
            yield f"not counted as evidence: {found}"

    def _rest(self) -> str:
        programs = self._programs.copy()
        unframed = programs.pop(b"", 0)
        shown = programs.most_common(_MOST_PROGRAMS)
        named = [f"{_text(program)} {number}" for program, number in shown]
        if others := programs.total() - sum(number for _, number in shown):
            named.append(f"others {others}")
        return ", ".join([*named, *([f"not syslog lines {unframed}"] if unframed else [])])


def _kinds(numbers: Counter[str], kinds: Iterable[str]) -> str:
    return ", ".join(
        f"{numbers[kind]} ignored" if kind == "nothing" else _counted(numbers[kind], kind)
        for kind in kinds
    )


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"


def _say_line(number: int, found: Found, line: bytes, why: str) -> None:
    reason = f" ({why})" if why else ""
    if not isinstance(found, Event):
        say(f"{number}: nothing{reason} | {_text(line)}", dim=True)
        return
    who = f"{found.address or '-'} {found.account or '-'}"
    meaning = f"{found.event} {who} {timestamps.local(found.time)} {found.format}"
    without = found.event == "login" and found.address is None
    say(
        f"{number}: {meaning}{reason} | {_text(line)}",
        fg="red" if without else _COLOURS[found.event],
    )


def _fields(found: Found) -> dict[str, object]:
    if not isinstance(found, Event):
        return dict.fromkeys(("event", "format", "address", "account", "time"))
    return {**found._asdict(), "time": timestamps.rfc3339(found.time)}


def _why(found: Found, line: bytes, recogniser: Recogniser, rules: Rules) -> str:
    """Why a line is nothing, or opens nothing."""
    if isinstance(found, Rejection):
        return found.reason
    if found is None:
        from sapd.events.explain import miss  # a module that nothing else needs

        return miss(recogniser.formats, line).reason
    if found.event != "login":
        return ""
    if found.address is None:
        return "neither it nor an earlier line of the same process names an address"
    now = recogniser.clock.now
    if found.time > now + timestamps.AHEAD:
        return "its stamp is ahead of now; check the clock and the log's timezone"
    why = decision.of_login(rules, found.address, found.account, found.time, now)
    return "" if why is None else why.words


def _text(line: bytes) -> str:
    """The line without its end, and not more of it than could ever count."""
    text = line.rstrip(b"\r\n")
    cut = "…" if len(text) > frames.LONGEST else ""
    return text[: frames.LONGEST].decode("utf-8", "surrogateescape") + cut
