"""`sapd init`: a first configuration, and the files that come with sapd."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import click

from sapd import messages, shipped
from sapd.cli.options import Command, common


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


@click.command("init", cls=Command)
@click.option("-n", "--dry-run", is_flag=True, help="Print the configuration, and write nothing.")
@_shipped_options
@common
def init_command(*, dry_run: bool, config_path: str, verbose: int, **kinds: str | None) -> None:
    """Look at this machine, and write a configuration for it.

    Each choice stands in it with its reason. Then say what is left to do, as commands to paste, and
    what `sapd check` says. Or print a file that comes with sapd: a schedule, or lines for the mail
    server.
    """
    config_path = os.path.abspath(config_path)  # which a schedule names from another folder
    program = shipped.program()
    wanted = [(kind, which) for kind, which in kinds.items() if which is not None]
    if wanted and dry_run:
        raise click.UsageError("--dry-run prints the configuration, and no other file.")
    if len(wanted) > 1:
        options = " and ".join(f"--{kind}" for kind, _ in wanted)
        raise click.UsageError(f"{options} exclude each other: one file is printed at a time.")
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
