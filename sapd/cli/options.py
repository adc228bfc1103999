"""What the commands share: options that all of them have, kinds of arguments, and colours."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any

import click
from click.core import ParameterSource

from sapd import defaults, messages, timestamps
from sapd.addresses import parse_address
from sapd.toml_table import seconds

HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
_CONFIG = f"The configuration; else SAPD_CONFIG, or {defaults.CONFIG}."
_VERBOSE = "Say what is done; -vv: also how much was read."


class Command(click.Command):
    """A command whose summary, the first line of its help, is never cut."""

    def get_short_help_str(self, limit: int = 45) -> str:
        """The whole summary, whatever the width."""
        return (self.help or "").partition("\n")[0].removesuffix(".")


class Group(click.Group):
    """The program itself."""

    command_class = Command


def say(text: str, **style: Any) -> None:
    """Print a line, in colours (as of `click.style`) only on a terminal that wants them."""
    if sys.stdout.isatty() and not os.environ.get("NO_COLOR"):
        messages.write(click.style(messages.one_line(text), **style))
    else:
        messages.say(text)


def of_program(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that may stand before the command's name."""
    for option in (
        click.version_option(package_name="sapd"),
        click.option("-v", "--verbose", count=True, help=_VERBOSE),
        click.option(
            "-c",
            "--config",
            "config_path",
            metavar="PATH",
            envvar="SAPD_CONFIG",
            default=defaults.CONFIG,
            help=_CONFIG,
        ),
    ):
        command = option(command)
    return command


def common(command: Callable[..., Any]) -> Callable[..., Any]:
    """The same behind the command's name, where they win."""

    def config_path(context: click.Context, _: click.Parameter, given: str | None) -> str:
        return str(context.find_root().params["config_path"]) if given is None else given

    def verbose(context: click.Context, _: click.Parameter, given: int) -> int:
        return int(context.find_root().params["verbose"]) + given

    for option in (
        click.version_option(package_name="sapd"),
        click.option("-v", "--verbose", count=True, callback=verbose, help=_VERBOSE),
        click.option(
            "-c",
            "--config",
            "config_path",
            metavar="PATH",
            callback=config_path,
            help=_CONFIG,
        ),
    ):
        command = option(command)
    return command


def config_was_named() -> bool:
    """Whether the caller chose the configuration, be it by the environment."""
    context = click.get_current_context()
    sources = {one.get_parameter_source("config_path") for one in (context, context.find_root())}
    return sources != {ParameterSource.DEFAULT}


at = click.option(
    "--at",
    metavar="TIME",
    type=None,
    callback=lambda _, __, text: None if text is None else _moment(text),
    help='Act as of that moment: "2026-11-22 10:41", 14:00, "yesterday 14:00", -10m, or as shown.',
)


_TIMES = 'write "2026-11-22 10:41", 10:41, "yesterday 10:41", "Nov 22 10:41:05", now or -10m'


def _moment(text: str) -> float:
    now = time.time()
    try:
        if text.lower() == "now":
            return now
        if text.startswith("-"):
            return now - seconds(text[1:])
        return timestamps.moment(text, None, now)
    except ValueError:
        raise click.BadParameter(
            f'"{text}" is not a time; {_TIMES}.',
            param_hint="--at",
        ) from None


class Duration(click.ParamType):  # type: ignore[type-arg]
    """A duration as the configuration has it, in seconds."""

    name = "duration"

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        """Read it; a value that was read already stays."""
        try:
            return value if isinstance(value, float) else float(seconds(value))
        except ValueError as error:
            self.fail(f"{error}.", param, ctx)


def address(text: str) -> str | None:
    """An address in its usual spelling; None if the text is none."""
    return parse_address(os.fsencode(text))
