"""The program `sapd`, also `python -m sapd`; the shortest way for what cron starts every minute."""

from __future__ import annotations

import os
import sys
import time

from sapd import defaults
from sapd.idle import nothing_happened

TYPE_CHECKING = False  # see sapd.idle
if TYPE_CHECKING:
    from typing import NoReturn


def main() -> NoReturn:
    """Do what the command line says; a plain `sapd run` without loading click."""
    settings = _of_plain_run(sys.argv[1:])
    if settings is not None and nothing_happened(settings):
        sys.exit(0)
    if settings is not None:
        import gc

        gc.disable()  # the process ends before it would pay; modules and a large state load faster
    from sapd import messages

    if os.environ.pop("TZ", None) is not None:
        time.tzset()  # logs are stamped in the zone of /etc/localtime, wherever the caller lives
    messages.open_standard_streams()
    os.umask(0o022)  # every file has the mode that it is made with, whatever the caller's
    if settings is None:
        from sapd import cli

        status = cli.main()
    else:
        status = messages.status_of(lambda: _run(settings))
    os._exit(status)  # all is printed and closed: to take down what was loaded takes 5 ms and more


def _of_plain_run(arguments: list[str]) -> str | None:
    """The configuration's path if this is `sapd run`, with -c or without; None if anything else."""
    if arguments == ["run"]:
        return os.environ.get("SAPD_CONFIG") or defaults.CONFIG
    if arguments[:1] == ["run"] and arguments[1:-1] in (["-c"], ["--config"]):
        return arguments[2]
    return None


def _run(settings: str) -> int:
    from sapd import config, messages, run

    try:
        return messages.tell(run.once(config.load(settings)))
    except config.Mistake as mistake:
        from sapd.closing import close_only  # which no sound minute pays for

        return messages.tell(close_only(settings, mistake))


if __name__ == "__main__":
    main()
