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
    plain = _plain_run(sys.argv[1:])
    once = plain is not None and "--for" not in plain
    if plain is not None and once and nothing_happened(plain["-c"]):
        os._exit(0)  # as below
    if once:
        import gc

        gc.disable()  # the process ends before it would pay; modules and a large state load faster
    from sapd import messages

    if os.environ.pop("TZ", None) is not None:
        time.tzset()  # logs are stamped in the zone of /etc/localtime, wherever the caller lives
    messages.open_standard_streams()
    os.umask(0o022)  # every file has the mode that it is made with, whatever the caller's
    status = None
    if plain is not None:
        status = messages.status_of(lambda: _run(plain["-c"])) if once else _repeat(plain)
    if status is None:
        from sapd import cli

        status = cli.main()
    os._exit(status)  # all is printed and closed: to take down what was loaded takes 5 ms and more


def _plain_run(arguments: list[str]) -> dict[str, str] | None:
    """The options of a `sapd run` by which cron starts one; None if this is anything else."""
    if arguments[:1] != ["run"] or len(arguments) % 2 == 0:
        return None
    options = dict(zip(arguments[1::2], arguments[2::2], strict=True))
    if "--config" in options:
        options = {"-c": options.pop("--config"), **options}
    if len(options) < len(arguments) // 2 or ("--every" in options and "--for" not in options):
        return None
    options.setdefault("-c", os.environ.get("SAPD_CONFIG") or defaults.CONFIG)
    return options if options.keys() <= {"-c", "--for", "--every"} else None


def _run(settings: str) -> int:
    from sapd import config, messages, run

    try:
        return messages.tell(run.once(config.load(settings)))
    except config.Mistake as mistake:
        from sapd.closing import close_only  # which no sound minute pays for

        return messages.tell(close_only(settings, mistake))


def _repeat(plain: dict[str, str]) -> int | None:
    """Repeat the pass; None if the options are not right, of which `cli` complains."""
    from sapd import messages
    from sapd.repeat import repeat
    from sapd.toml_table import seconds

    try:
        duration, every = seconds(plain["--for"]), seconds(plain.get("--every", "1s"))
    except ValueError:
        return None
    if every > duration:
        return None
    return messages.status_of(lambda: repeat(plain["-c"], duration, every))


if __name__ == "__main__":
    main()
