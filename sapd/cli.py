"""Commands and options, and the tables that they print."""

from __future__ import annotations

import json
import os
import stat
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import click
from click.core import ParameterSource

from sapd import (
    config,
    decision,
    defaults,
    errors,
    files,
    formats,
    journal,
    journal_matches,
    maillog,
    maps,
    messages,
    run,
    shipped,
    timestamps,
)
from sapd.addresses import parse_address
from sapd.recogniser import DAY, Event, Recogniser, Rejection
from sapd.relay import Rules
from sapd.report import Report
from sapd.toml_table import seconds

_PATIENCE = 300  # tenths of a second that `close` waits
_HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


def main() -> int:
    """Do what the command line says, and give the exit status that sapd(8) documents."""
    return messages.status_of(_command)


def _command() -> int:
    try:  # not by `main`, which takes any pipe that broke for standard output
        with sapd.make_context("sapd", sys.argv[1:]) as context:
            status = sapd.invoke(context)
        return status if isinstance(status, int) else 0
    except click.exceptions.Exit as end:  # behind the help
        return end.exit_code
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "sapd"
        messages.complain("error", f"{error.format_message()} See {command} --help.")
        return error.exit_code
    except click.Abort:
        return 130


def _say(text: str, **style: Any) -> None:
    """Print a line, in colours (as of `click.style`) only on a terminal that wants them."""
    if sys.stdout.isatty() and not os.environ.get("NO_COLOR"):
        messages.write(click.style(messages.one_line(text), **style))
    else:
        messages.say(text)


def _common(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that every command has."""
    for option in (
        click.version_option(package_name="sapd"),
        click.option(
            "-v", "--verbose", count=True, help="Say what is done; -vv: also how much was read."
        ),
        click.option(
            "-c",
            "--config",
            "config_path",
            metavar="PATH",
            envvar="SAPD_CONFIG",
            default=defaults.CONFIG,
            show_default=True,
            show_envvar=True,
            help="The configuration.",
        ),
    ):
        command = option(command)
    return command


_at = click.option(
    "--at",
    metavar="TIME",
    help="Act as of that moment; a time without a zone is in the log's.",
)


def _moment(text: str | None, settings: config.Config) -> float | None:
    if text is None:
        return None
    try:
        return timestamps.moment(text, settings.logs[0].zone)
    except ValueError:
        raise click.BadParameter(
            f'"{text}" is no time; write it as "2026-11-22 10:41".', param_hint="--at"
        ) from None


@click.group(context_settings=_HELP, invoke_without_command=True)
@click.version_option(package_name="sapd")
@click.pass_context
def sapd(context: click.Context) -> None:
    """SMTP after POP: lets an address that just fetched mail relay for a while."""
    if context.invoked_subcommand is None:
        raise click.UsageError("Missing command.", context)


class _Duration(click.ParamType):  # type: ignore[type-arg]
    name = "duration"

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        try:
            return value if isinstance(value, float) else float(seconds(value))
        except ValueError as error:
            self.fail(f"{error}.", param, ctx)


@sapd.command("run")
@click.option("-n", "--dry-run", is_flag=True, help="Say what would be done, and write nothing.")
@_at
@click.option(
    "--for",
    "duration",
    type=_Duration(),
    metavar="TIME",
    help='Repeat the pass for so long, as "55s"; then --every says how often.',
)
@click.option("--every", type=_Duration(), metavar="TIME", help='As "1s", the default.')
@_common
def run_command(
    *,
    dry_run: bool,
    at: str | None,
    duration: float | None,
    every: float | None,
    config_path: str,
    verbose: int,
) -> int:
    """Read the new log lines, and open and close the relay accordingly: one pass.

    Silent when all is well, as cron wants it.
    """
    if duration is not None:
        from sapd.repeat import repeat

        if dry_run or at is not None:
            other = "--dry-run" if dry_run else "--at"
            raise click.UsageError(f"--for and {other} exclude each other.")
        if (every or 1.0) > duration:
            raise click.UsageError(f"--every {every or 1:g}s is more than --for {duration:g}s.")
        return repeat(config_path, duration, every or 1.0, verbose=verbose)
    if every is not None:
        raise click.UsageError("--every needs --for, the time for which the pass is repeated.")
    try:
        settings = config.load(config_path)
    except config.Mistake as mistake:
        if dry_run or at is not None:
            raise
        from sapd.closing import close_only

        return messages.tell(close_only(config_path, mistake), verbose=verbose)
    report = run.once(settings, _moment(at, settings), dry=dry_run)
    return messages.tell(report, dry=dry_run, verbose=verbose)


@sapd.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
@_at
@_common
def list_command(*, as_json: bool, at: str | None, config_path: str, verbose: int) -> None:
    """Show who may relay now, by which accounts' logins, and until when."""
    settings = config.load(config_path)
    given = _moment(at, settings)
    moment = time.time() if given is None else given
    from sapd import who

    grants, unpublished = who.grants(settings, moment)
    if unpublished is not None:
        since = timestamps.rfc3339(unpublished)
        reason = f"could not be brought up to date since {since}, and may let in others than these"
        path = maps.chosen(settings.access).path
        messages.complain("warning", f"{path}: {reason}; sapd run says why")
    elif given is None:
        _warn_of_differences(settings, moment)
    if as_json:
        rows = [
            {
                "address": grant.address,
                "accounts": grant.accounts,
                "since": timestamps.rfc3339(grant.since),
                "until": timestamps.rfc3339(grant.until),
                "seconds_left": int(grant.until - moment),
            }
            for grant in grants
        ]
        messages.write(json.dumps(rows, indent=1))
        return
    if not grants:
        _say("no address is open")
        return
    width = max(len(grant.address) for grant in grants)
    _say(f"{'ADDRESS':<{width}}  {'SINCE':<20}  {'UNTIL':<20}  {'LEFT':>7}  ACCOUNTS")
    for grant in grants:
        minutes, seconds = divmod(int(grant.until - moment), 60)
        since, until = timestamps.rfc3339(grant.since), timestamps.rfc3339(grant.until)
        left, accounts = f"{minutes}m{seconds:02d}s", ", ".join(grant.accounts)
        _say(f"{grant.address:<{width}}  {since}  {until}  {left:>7}  {accounts}")


@sapd.command("who")
@click.argument("address")
@_at
@_common
def who_command(*, address: str, at: str | None, config_path: str, verbose: int) -> None:
    """Tell whether an address may relay, by whose login, or which rule keeps it closed.

    With --at, whether it could at that moment; then the latest lines of its trail.
    """
    from sapd import who

    settings = config.load(config_path)
    wanted, given, now = _address(address), _moment(at, settings), time.time()
    for line in who.tell(settings, wanted, now, given):
        _say(line)
    if given is None:
        _warn_of_differences(settings, now)


def _warn_of_differences(settings: config.Config, now: float) -> None:
    from sapd import who

    for subject, text in who.differences(settings, now):
        messages.complain("warning", f"{subject}: {text}")


@sapd.command("close")
@click.argument("addresses", metavar="[ADDRESS]...", nargs=-1)
@click.option("--all", "every_one", is_flag=True, help="Close all addresses.")
@_common
def close_command(
    *, addresses: tuple[str, ...], every_one: bool, config_path: str, verbose: int
) -> int:
    """Close addresses now: no login until now counts for them any more.

    A new login opens them again, unless policy.never names them. Prints what holds then.
    """
    if every_one == bool(addresses):
        raise click.UsageError("Name the addresses, or give --all.")
    from sapd import state, who

    wanted = {_address(address) for address in addresses}
    settings = config.load(config_path)
    report = _close(settings, wanted)
    status = messages.tell(report)
    saved = state.path(settings.state_directory)
    if any(problem.subject == saved for problem in report.problems):
        reason = "what was closed is not remembered: a login that is read again opens it"
        messages.complain("error", f"{saved}: {reason}")
    closed = {text.partition(" ")[0] for verb, text in report.actions if verb == "close"}
    for line in who.at_present(settings, sorted(wanted or closed), time.time()):
        _say(line)
    return status


def _address(text: str) -> str:
    found = parse_address(text.encode("utf-8", "surrogateescape"))
    if found is None:
        raise click.BadParameter(f'"{text}" is no address.', param_hint="ADDRESS")
    return found


def _close(settings: config.Config, wanted: set[str]) -> Report:
    """Wait for a run that is at work, which takes seconds at most."""
    for _ in range(_PATIENCE):
        with suppress(files.Locked):
            return run.once(settings, closing=wanted)
        time.sleep(0.1)
    reason = "another run has held the lock for long; nothing was closed, try again"
    raise errors.SapdError(errors.LOCKED, settings.state_directory, reason)


@sapd.command("match")
@click.argument("file", metavar="[FILE|-]", default="-")
@click.option("--format", "names", metavar="F", multiple=True, help="Format to try (repeatable).")
@click.option(
    "--journal",
    "matches",
    metavar="FIELD=VALUE",
    multiple=True,
    help="Read the last day's journal.",
)
@click.option("--explain", is_flag=True, help="Say of every line that is nothing why it is.")
@click.option("--summary", is_flag=True, help="Print the counts only.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
@_common
def match_command(
    *,
    file: str,
    names: tuple[str, ...],
    matches: tuple[str, ...],
    explain: bool,
    summary: bool,
    as_json: bool,
    config_path: str,
    verbose: int,
) -> None:
    """Show what each line of a log means: login, logout, connect, or nothing.

    With --journal, each entry of the last day that fits; it takes what journalctl takes.
    Without --format, the formats are those of the configuration, or all where there is none.
    """
    if summary and (as_json or explain):
        other = "--json" if as_json else "--explain"
        raise click.UsageError(f"--summary and {other} exclude each other.")
    if matches:
        if file != "-":
            raise click.UsageError("A file and --journal exclude each other.")
        if (objection := journal_matches.objection_to(matches)) is not None:
            raise click.BadParameter(objection, param_hint="--journal")
        file = journal_matches.name(matches)
    settings, directory, rules = _formats(file, names, config_path)
    now = time.time()
    clock = timestamps.Clock(now, settings.zone)
    recogniser = Recogniser(settings.formats, clock, directory, programs=settings.programs)
    known = recogniser.formats  # what is wrong with one is said before the first line is read
    counts = Counter[str]()
    by_format = Counter[tuple[str, str]]()
    looked_at = (
        _recognised_entries(recogniser, matches, now)
        if matches
        else ((recogniser.recognise(line), line) for line in _lines(file, quiet=summary))
    )
    for number, (found, line) in enumerate(looked_at, start=1):
        event = found if isinstance(found, Event) else None
        counts[event.event if event else "nothing"] += 1
        if event:
            by_format[event.format, event.event] += 1
        if summary:
            continue
        why = "" if event is None else _why_it_opens_nothing(event, now, rules)
        if isinstance(found, Rejection):
            why = found.reason
        elif explain and event is None:
            from sapd.explain import miss  # a module that nothing else needs

            why = miss(known, line).reason
        if as_json:
            reason = {"why": why or None} if explain else {}
            messages.write(json.dumps({"line": number, **_fields(event), **reason}))
        else:
            _say_line(number, event, why if explain else "")
        if messages.unwritable():
            return
    if not as_json:
        _say_counts(counts, by_format, recogniser)


def _recognised_entries(
    recogniser: Recogniser, matches: tuple[str, ...], now: float
) -> Iterator[tuple[Event | Rejection | None, bytes]]:
    """What each entry of a journal's last day says, with the line that it would be in a file."""
    for frame in journal.JournalReading(matches, None, now - DAY).frames():
        yield recogniser.recognise_frame(frame), journal.as_line(frame)


def _why_it_opens_nothing(event: Event, now: float, rules: Rules) -> str:
    if event.event != "login":
        return ""
    if event.address is None:
        return "neither it nor an earlier line of the same process names an address"
    if event.time > now + timestamps.AHEAD:
        return "its stamp is ahead of now; check the clock and the log's timezone"
    why = decision.of_login(rules, event.address, event.account, event.time, now)
    return "" if why is None else why.words


_COLOURS = {"login": "green", "logout": "cyan", "connect": "yellow"}


def _say_line(number: int, event: Event | None, why: str) -> None:
    reason = f" ({why})" if why else ""
    if event is None:
        _say(f"{number}: nothing{reason}", dim=True)
        return
    when, address = timestamps.rfc3339(event.time), event.address or "-"
    text = f"{event.event} {address} {event.account or '-'} {when} {event.format}"
    colour = "red" if event.event == "login" and event.address is None else _COLOURS[event.event]
    _say(f"{number}: {text}{reason}", fg=colour)


def _say_counts(
    counts: Counter[str], by_format: Counter[tuple[str, str]], recogniser: Recogniser
) -> None:
    kinds = ("login", "logout", "connect", "nothing")
    said = ", ".join(f"{kind} {counts[kind]}" for kind in kinds)
    _say(f"lines {counts.total()}: {said}")
    for name in dict.fromkeys(name for name, _ in sorted(by_format)):
        events = ", ".join(
            f"{kind} {by_format[name, kind]}" for kind in kinds if by_format[name, kind]
        )
        _say(f"format {name}: {events}")
    unusable = recogniser.unusable
    _say(
        f"no evidence: address {unusable.address}, stamp {unusable.stamp}, cut {unusable.cut}, "
        f"torn {unusable.torn}; logins without an address {unusable.no_address}"
    )


_BIG = 8 * 1024 * 1024  # bytes; reading less takes no patience


def _lines(file: str, *, quiet: bool) -> Iterator[bytes]:
    """The lines of a file; with a progress bar, if it is big and nothing else is on the screen."""
    try:
        with click.open_file(file, "rb") as log:
            about = os.fstat(log.fileno())
            if (
                stat.S_ISREG(about.st_mode)
                and about.st_size > _BIG
                and sys.stderr.isatty()
                and (quiet or not sys.stdout.isatty())
            ):
                with click.progressbar(length=about.st_size, file=sys.stderr) as bar:
                    for line in maillog.lines(log):
                        yield line
                        if log.tell() - bar.pos > _BIG // 8:
                            bar.update(log.tell() - bar.pos)
                    bar.update(about.st_size - bar.pos)
            else:
                yield from maillog.lines(log)
    except OSError as error:
        reason = f"can't be read: {error.strerror}"
        raise errors.SapdError(errors.LOG_UNREADABLE, file, reason) from None


def _fields(event: Event | None) -> dict[str, object]:
    if event is None:
        return dict.fromkeys(("event", "format", "address", "account", "time"))
    return {**event._asdict(), "time": timestamps.rfc3339(event.time)}


def _formats(file: str, names: tuple[str, ...], config_path: str) -> tuple[config.Log, str, Rules]:
    """The formats and the zone to match with, as asked, as configured for the file, or usual.

    Also the folder of the administrator's own formats, and the rules.
    """
    try:
        settings = config.load(config_path)
    except errors.SapdError:
        given = click.get_current_context().get_parameter_source("config_path")
        if given is not ParameterSource.DEFAULT or os.path.exists(config_path):
            raise
        log, directory = config.Log(file, (formats.AUTO,)), defaults.FORMATS_DIRECTORY
        rules = Rules(seconds(defaults.WINDOW))
    else:
        path = os.path.abspath(file)
        here = [log for log in settings.logs if file != "-" and log.path in (path, file)]
        log, directory = (here or settings.logs)[0], settings.formats_directory
        rules = settings.rules
    for name in names:
        if name not in [formats.AUTO, *formats.names(directory)]:
            known = ", ".join([formats.AUTO, *formats.names(directory)])
            raise click.BadParameter(f'"{name}" is none of {known}.', param_hint="--format")
    return log._replace(formats=names or log.formats), directory, rules


@sapd.command("check")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array, for monitoring.")
@_common
def check_command(*, as_json: bool, config_path: str, verbose: int) -> int:
    """Tell whether this set-up is sound: one line a finding, exit status 0 only if all hold."""
    from sapd import check  # no other command pays for it
    from sapd.check.finding import problem

    found = []
    try:
        for finding in check.findings(config.load(config_path)):
            found.append(finding)
            if not as_json:
                _say(f"{finding.state}: {finding.text}", fg=_STATES[finding.state])
    except errors.SapdError as mistake:
        if not as_json:
            raise
        found += map(problem, (mistake, *mistake.others))
    if as_json:
        messages.write(json.dumps([finding.as_object() for finding in found], indent=1))
    return next((finding.status for finding in found if finding.status), 0)


_STATES = {"ok": "green", "note": "yellow", "problem": "red"}


def _shipped_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """An option for each kind of file that comes with sapd; its value may be left out."""
    for kind, files_ in reversed(shipped.FILES.items()):
        first, *others = files_
        command = click.option(
            f"--{kind}",
            is_flag=not others,
            flag_value=first,
            type=click.Choice(list(files_)),
            help=f"Print {files_[first]}{', or another of its kind' if others else ''}.",
        )(command)
    return command


@sapd.command("init")
@click.option("-n", "--dry-run", is_flag=True, help="Print the configuration, and write nothing.")
@_shipped_options
@_common
def init_command(*, dry_run: bool, config_path: str, verbose: int, **kinds: str | None) -> None:
    """Look at this machine, and write a configuration in which each choice has its reason.

    Then say what is left to do, as commands to paste, and what `sapd check` says. Or print files
    that come with sapd: schedules, and lines for the mail server.
    """
    program = shipped.program()
    wanted = [(kind, which) for kind, which in kinds.items() if which is not None]
    if wanted and dry_run:
        raise click.UsageError("--dry-run prints the configuration, and no other file.")
    for kind, which in wanted:
        messages.write(shipped.text(kind, which, program, config_path).rstrip("\n"))
    if wanted:
        return
    from sapd import init  # no other command pays for it

    proposal = init.propose(config_path, shipped.called(program))
    say = messages.aside if dry_run else messages.say
    if dry_run:
        messages.write(proposal.text.rstrip("\n"))
    else:
        init.write(config_path, proposal.text)
        say(f"{config_path} is written; it says why each choice was made")
    for unread in proposal.unread:
        messages.aside(f"was not looked at: {unread}")
    for number, step in enumerate(proposal.steps, 1):
        say(f"# {number}. {step.why}")
        for line in step.commands:
            say(line)
    say(f"# sapd check {'would say' if dry_run else 'says'}")
    for finding in init.findings(config_path, proposal.text):
        say(f"# {finding.state}: {finding.text}")
