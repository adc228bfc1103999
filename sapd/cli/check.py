"""`sapd check`: is this set-up sound."""

from __future__ import annotations

import json

import click

from sapd import config, errors, messages
from sapd.cli.options import Command, common, say

_STATES = {"ok": "green", "note": "yellow", "problem": "red"}


@click.command("check", cls=Command)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array, for monitoring.")
@common
def check_command(*, as_json: bool, config_path: str, verbose: int) -> int:
    """Tell whether this set-up is sound, with a remedy for each problem.

    One line a finding; the exit status is 0 only if there is no problem.
    """
    from sapd import check  # no other command pays for it
    from sapd.check.finding import problem

    found = []
    try:
        for finding in check.findings(config.load(config_path)):
            found.append(finding)
            if not as_json:
                say(f"{finding.state}: {finding.text}", fg=_STATES[finding.state])
    except errors.SapdError as mistake:
        if not as_json:
            raise
        found += map(problem, (mistake, *mistake.others))
    if as_json:
        messages.write(json.dumps([finding.as_object() for finding in found], indent=1))
    return next((finding.status for finding in found if finding.status), 0)
