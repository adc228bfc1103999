"""Commands and options, and the tables that they print."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial

import click
from click.shell_completion import shell_complete

from sapd import config, errors, files, maps, messages, run, timestamps
from sapd.cli import options
from sapd.cli.check import check_command
from sapd.cli.init import init_command
from sapd.cli.man import man_command
from sapd.cli.match import match_command
from sapd.cli.options import HELP, Duration, Group, common, of_program, say
from sapd.report import Report

_PATIENCE = 300  # tenths of a second that `close` waits
_SILENCE = 5  # of them, before it says so
_ADDRESS_LIKE = re.compile(r"([\d.]*\.[\d.]*|[\da-fA-F.]*:[\da-fA-F:.]*)(/\d*)?|")
_COMPLETE = "_SAPD_COMPLETE"


def main() -> int:
    """Do what the command line says, and give the exit status that sapd(8) documents."""
    return messages.status_of(_command)


def _command() -> int:
    if _COMPLETE in os.environ:
        return shell_complete(sapd, {}, "sapd", _COMPLETE, os.environ[_COMPLETE])
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
    except errors.SapdError as problem:
        if problem.status == errors.NO_PERMISSION and os.geteuid() != 0:
            reason = f"{problem.reason}; try it with sudo"
            raise errors.SapdError(problem.status, problem.subject, reason) from None
        raise


@click.group(
    cls=Group,
    context_settings=HELP,
    invoke_without_command=True,
    epilog="`sapd man` shows sapd(8), `sapd man sapd.toml` the configuration.",
)
@of_program
@click.pass_context
def sapd(context: click.Context, *, config_path: str, verbose: int) -> None:
    """SMTP after POP: lets an address that just fetched mail relay for a while."""
    if context.invoked_subcommand is None:
        messages.write(context.get_help())


@sapd.command("run")
@click.option("-n", "--dry-run", is_flag=True, help="Say what would be done, and write nothing.")
@options.at
@click.option(
    "--for",
    "duration",
    type=Duration(),
    metavar="TIME",
    help='Repeat the pass for so long, as "55s"; then --every says how often.',
)
@click.option("--every", type=Duration(), metavar="TIME", help='As "1s", the default.')
@common
def run_command(
    *,
    dry_run: bool,
    at: float | None,
    duration: float | None,
    every: float | None,
    config_path: str,
    verbose: int,
) -> int:
    """Open and close the relay as the new log lines say: one pass.

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
        report = run.once(config.load(config_path), at, dry=dry_run)
    except config.Mistake as mistake:
        if dry_run or at is not None:
            raise
        from sapd.closing import close_only

        return messages.tell(close_only(config_path, mistake), verbose=verbose)
    status = messages.tell(report, dry=dry_run, verbose=verbose)
    if verbose and not report.problems and not report.changed_something:
        say("nothing new")
    return status


@sapd.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
@options.at
@common
def list_command(*, as_json: bool, at: float | None, config_path: str, verbose: int) -> None:
    """Show who may relay now, by whose logins, and until when."""
    settings = config.load(config_path)
    moment = time.time() if at is None else at
    from sapd import who

    grants, unpublished = who.grants(settings, moment)
    if unpublished is not None:
        since = timestamps.local(unpublished)
        reason = f"could not be brought up to date since {since}, and may let in others than these"
        path = maps.chosen(settings.access).path
        messages.complain("warning", f"{path}: {reason}; sapd run says why")
    elif at is None:
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
        say("no address is open")
        return
    width = max(len(grant.address) for grant in grants)
    say(f"{'ADDRESS':<{width}}  {'SINCE':<25}  {'UNTIL':<25}  {'LEFT':>7}  ACCOUNTS")
    for grant in grants:
        minutes, seconds = divmod(int(grant.until - moment), 60)
        since, until = timestamps.local(grant.since), timestamps.local(grant.until)
        left, accounts = f"{minutes}m{seconds:02d}s", ", ".join(grant.accounts)
        say(f"{grant.address:<{width}}  {since}  {until}  {left:>7}  {accounts}")


@sapd.command("who")
@click.argument("asked", metavar="ADDRESS|ACCOUNT")
@options.at
@common
def who_command(*, asked: str, at: float | None, config_path: str, verbose: int) -> None:
    """Tell why an address or account may relay, or may not.

    Of an account, for each address from which it logged in. With --at, whether it could at that
    moment; then the latest lines of the trail.
    """
    from sapd import who

    now, wanted = time.time(), options.address(asked)
    if wanted is None and _ADDRESS_LIKE.fullmatch(asked):
        raise click.BadParameter(f'"{asked}" is not an address.', param_hint="ADDRESS")
    if at is not None and at > now:
        reason = f"{timestamps.local(at)} is in the future; sapd list --at shows who will be open."
        raise click.BadParameter(reason, param_hint="--at")
    settings = config.load(config_path)
    if wanted is not None:
        lines = who.tell(settings, wanted, now, at)
    else:
        lines = who.tell_of_account(settings, asked, now, at)
    for line in lines:
        say(line)
    if at is None:
        _warn_of_differences(settings, now)


def _warn_of_differences(settings: config.Config, now: float) -> None:
    from sapd import who

    for subject, text in who.differences(settings, now):
        messages.complain("warning", f"{subject}: {text}")


@sapd.command("close")
@click.argument("addresses", metavar="[ADDRESS]...", nargs=-1)
@click.option("--all", "every_one", is_flag=True, help="Close all addresses.")
@common
def close_command(
    *, addresses: tuple[str, ...], every_one: bool, config_path: str, verbose: int
) -> int:
    """Close addresses now: no login until now counts any more.

    A new login opens them again, unless policy.never names them. Prints what holds then.
    """
    if every_one == bool(addresses):
        raise click.UsageError("Name the addresses, or give --all.")
    wanted = set()
    for text in addresses:
        if (address := options.address(text)) is None:
            reason = (
                f'"{text}" is not an address; sapd who {shlex.quote(text)} finds an account\'s.'
            )
            raise click.BadParameter(reason, param_hint="ADDRESS")
        wanted.add(address)
    settings, mistakes = None, 0
    try:
        settings = config.load(config_path)
        report = _close(partial(run.once, settings, closing=wanted))
    except config.Mistake as mistake:
        from sapd.closing import close_only

        report = _close(partial(close_only, config_path, mistake, closing=wanted))
        mistakes = 1 + len(mistake.others)
    status = messages.tell(report)
    for line in _closed(settings, wanted, report, mistakes):
        say(line)
    return status


def _closed(
    settings: config.Config | None, wanted: set[str], report: Report, mistakes: int
) -> Iterator[str]:
    """What holds of the addresses after a close, whatever `mistakes` there are."""
    from sapd import state, who

    for problem in report.problems:
        if os.path.basename(problem.subject) == state.path(""):
            reason = "what was closed is not remembered: a login that is read again opens it"
            messages.complain("error", f"{problem.subject}: {reason}")
    closed = {text.partition(" ")[0] for verb, text in report.actions if verb == "close"}
    if settings is not None:
        yield from who.at_present(settings, sorted(wanted or closed), time.time())
        return
    others = "may still be open" if len(report.problems) > mistakes else "was not open"
    for address in sorted(wanted | closed):
        yield f"{address} {'is closed' if address in closed else others}"


def _close(act: Callable[[], Report]) -> Report:
    """Close, as soon as a run that is at work has ended, which takes seconds at most."""
    for turn in range(_PATIENCE):
        try:
            return act()
        except files.Locked as locked:
            if turn == _SILENCE:
                holder = f" (process {locked.holder})" if locked.holder else ""
                messages.aside(f"waiting for the run that is at work{holder}")
        time.sleep(0.1)
    reason = "another run has held the lock for long; nothing was closed, try again"
    raise errors.SapdError(errors.LOCKED, "close", reason)


sapd.add_command(check_command)
sapd.add_command(init_command)
sapd.add_command(match_command)
sapd.add_command(man_command)
