"""A first configuration for this machine, each choice with its reason, and what is left to do."""

from __future__ import annotations

import os
from collections.abc import Iterator
from tempfile import TemporaryDirectory
from typing import NamedTuple

from sapd import check, config, defaults, errors, files
from sapd.check.finding import Finding
from sapd.check.schedules import schedules
from sapd.init import choice, logs, servers
from sapd.init.page import Section, Setting, page
from sapd.init.servers import Step

_WINDOW = "How long a login lets its address relay; each login renews it."
_CRONS = ("usr/sbin/cron", "usr/sbin/crond", "usr/sbin/fcron")


class Proposal(NamedTuple):
    """The text of a configuration, what is left to do, and what could not be looked at."""

    text: str
    steps: tuple[Step, ...]
    unread: tuple[str, ...]


def propose(path: str, sapd: str, root: str = "/") -> Proposal:
    """Look at the machine whose / is `root`, for a configuration at `path`.

    `sapd` is how a person calls this program. Nothing is changed.
    """
    found = logs.look(root)
    server = servers.propose(root, sapd)
    top = Section("", _WINDOW, [Setting("window", defaults.WINDOW)])
    directory = Setting("directory", defaults.STATE_DIRECTORY)
    state = Section("[state]", "What sapd remembers from run to run.", [directory])
    text = page([top, *choice.sections(found), server.access, state])
    steps = [*_syslog(found), *_log(found), *server.steps, *_schedule(path, sapd, root)]
    if path != defaults.CONFIG:
        steps = [step.of(path, sapd) for step in steps]
    return Proposal(text, tuple(steps), found.unread)


def _syslog(found: logs.Found) -> Iterator[Step]:
    if not found.mail and not found.journald and not found.dovecot and not found.logs:
        why = "there is no syslog daemon and no journal, so no log"
        yield Step(why, ("apt-get install -y rsyslog && service rsyslog start",))


def _log(found: logs.Found) -> Iterator[Step]:
    if choice.is_unknown(found):
        why = "the POP server's log was not found: name it, and its format, under [[log]]"
        yield Step(why, (f"${{EDITOR:-vi}} {defaults.CONFIG}",))


def _schedule(path: str, sapd: str, root: str) -> Iterator[Step]:
    if schedules(os.path.abspath(path), root).found:
        return
    has_cron = any(os.path.exists(os.path.join(root, cron)) for cron in _CRONS)
    if not has_cron and os.path.isdir(os.path.join(root, "run/systemd/system")):
        units = "/etc/systemd/system"
        yield Step(
            "systemd starts sapd every minute",
            (
                f"{sapd} init --systemd service >{units}/sapd.service",
                f"{sapd} init --systemd timer >{units}/sapd.timer",
                "systemctl daemon-reload && systemctl enable --now sapd.timer",
            ),
        )
        return
    install = () if has_cron else ("apt-get install -y cron",)
    yield Step("cron starts sapd every minute", (*install, f"{sapd} init --cron >/etc/cron.d/sapd"))


def write(path: str, text: str) -> None:
    """Make the configuration, and its folder; never over anything that is there.

    Raises `SapdError` 73 for that, and what else keeps it from being written.
    """
    try:
        os.makedirs(os.path.dirname(os.path.abspath(path)), 0o755, exist_ok=True)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except FileExistsError:
        reason = "already exists and was left alone; sapd init -n prints what would be proposed"
        raise errors.SapdError(errors.CANT_CREATE, path, reason) from None
    except OSError as error:
        raise errors.cannot_write(path, error) from None
    try:
        files.write_all(fd, text.encode(), 0)
        os.fsync(fd)
    except OSError as error:
        os.unlink(path)
        raise errors.cannot_write(path, error) from None
    finally:
        os.close(fd)


def findings(path: str, text: str) -> Iterator[Finding]:
    """What `sapd check` says of a text that stands, or would stand, at `path`."""
    with TemporaryDirectory(prefix="sapd-init-") as folder:
        trial = os.path.join(folder, "sapd.toml")
        files.replace(trial, text.encode(), 0o600, durable=False)
        settings = config.load(trial)
    yield from check.findings(settings._replace(path=path))
