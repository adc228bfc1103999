"""Whether this set-up is sound: looks at all as a run would, and at who else has a hand in it.

Nothing is changed; only a folder of scratch, gone at the end, is for trials.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

from sapd import audit, errors, files, idle, maps, state
from sapd.check import journals, logs, rights, starting
from sapd.check.finding import Finding, Note, problem
from sapd.check.running import another_one
from sapd.check.schedules import Schedules, schedules
from sapd.config import Config
from sapd.events import formats
from sapd.maps.live import Published
from sapd.who import last_pass_overdue


def findings(config: Config, root: str = "/") -> Iterator[Finding]:
    """Yield the findings, each problem with its remedy; `root` is where /etc is looked for.

    As root it is judged as the user as whom a run goes on.
    """
    look = schedules(os.path.abspath(config.path), root)
    users = {start.user for start in look.starts}
    user = rights.of_a_run(config, users.pop() if len(users) == 1 else None)
    lacking = dict(rights.findings(config, user)) if user else {}
    said = set()
    for finding in _all(config, look, root):
        path = next((path for path in lacking if finding.text.startswith(f"{path}: ")), None)
        if path is not None:  # in the place of what root, or this process, thinks of it
            finding = lacking[path]
        if finding.text not in said:  # one format may be broken for two logs
            said.add(finding.text)
            yield finding
    yield from (one for one in dict.fromkeys(lacking.values()) if one.text not in said)
    if user and not user.is_me and os.geteuid() != 0:
        yield Note(f"a run goes on as {user.name}, who may meet other things; try sudo sapd check")


def _all(config: Config, look: Schedules, root: str) -> Iterator[Finding]:
    yield Finding(0, f"{config.path}: the configuration is valid")
    for name in formats.names(config.formats_directory):
        try:
            formats.load(name, config.formats_directory)
        except errors.SapdError as broken:
            yield problem(broken)
    for log in config.logs:
        yield from (journals if log.journal else logs).findings(log, config, root)
    damaged: Finding | None = None
    published: Published | None = None
    try:
        published = state.load(config.state_directory).published
    except errors.SapdError as error:
        damaged = problem(error)
    scratch = config.state_directory
    if not os.path.isdir(scratch):
        scratch = os.path.dirname(scratch)  # where the first run makes it
    yield from maps.chosen(config.access).findings(published, scratch, root)
    if (others := another_one(config.access.server, root)) is not None:
        reason = f'is "{config.access.server}", but what runs here is {others}'
        yield Finding(errors.BAD_CONFIG, f"{config.path}: access.server {reason}; set it to that")
    yield damaged or _state_folder(config.state_directory)
    yield from _trail(config)
    written = config.path in config.snapshot  # `sapd init` asks about a proposal
    if written and idle.state_directory(config.path) != config.state_directory:
        reason = "write [state] directory in one line, in quotes, without escapes"
        yield Note(f"{config.path}: idle passes are slower than necessary; {reason}")
    yield from _trust(config)
    yield from starting.findings(config, look, root)
    if overdue := last_pass_overdue(config, time.time(), root):
        yield Finding(errors.BAD_CONFIG, f"{config.state_directory}: {overdue}")


def _trail(config: Config) -> Iterator[Finding]:
    """Whether a run could add to the audit trail that is there."""
    if not config.audit.keep_lines or not os.path.isdir(config.state_directory):
        return
    try:
        path = os.path.join(config.state_directory, audit.NAME)
        os.close(files.open_in_place(path, writing=False))
    except FileNotFoundError:
        pass  # the first change makes it
    except errors.SapdError as error:
        yield problem(error)


def _trust(config: Config) -> Iterator[Finding]:
    """Whether others may change the files that a run believes."""
    server = maps.chosen(config.access)
    for setting, path in server.files().items():
        if setting == "access.source" and os.path.exists(path):
            try:
                files.refuse_untrusted(path)
            except errors.SapdError as refused:
                if not _may_write_the_map(refused.subject, server.path):
                    yield problem(refused)
    directory = config.state_directory
    if os.path.isdir(directory) and os.stat(directory).st_mode & 0o022:
        reason = f"others may write there; chmod go-w {directory}"
        yield Finding(errors.BAD_CONFIG, f"{directory}: {reason}")


def _may_write_the_map(place: str, database: str) -> bool:
    """Whether nobody may change a file or folder but the owner of the map's folder.

    As sendmail's TrustedUser owns Debian's /etc/mail: he decides who relays in any case.
    """
    try:
        about, folder = os.stat(place), os.stat(os.path.dirname(database))
    except OSError:
        return False
    return about.st_uid == folder.st_uid and not about.st_mode & 0o022


def _state_folder(directory: str) -> Finding:
    if os.path.isdir(directory):
        if os.access(directory, os.W_OK | os.X_OK):
            return Finding(0, f"{directory}: the state can be saved")
        reason = "is not writable for this user; chown it, or run as its owner"
        return Finding(errors.NO_PERMISSION, f"{directory}: {reason}")
    if not os.path.islink(directory) and os.access(os.path.dirname(directory), os.W_OK | os.X_OK):
        return Finding(0, f"{directory}: sapd run makes it")
    return Finding(errors.CANT_CREATE, f"{directory}: is missing and can't be made; make it")
