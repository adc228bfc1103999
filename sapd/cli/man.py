"""`sapd man`: the manual pages, also where no man path finds them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import click

from sapd import messages
from sapd.cli.options import Command

_FOLDER = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "man")
PAGES = {"sapd": "sapd.8", "sapd.toml": "sapd.toml.5"}
_VIEWERS = (["man", "-l"], ["mandoc", "-l"])

_CHARACTERS = {
    r"\-": "-", r"\(aq": "'", r"\(ti": "~", r"\(ha": "^", r"\(ga": "`", r"\&": "", r"\e": "\\",
}  # fmt: skip


@click.command("man", cls=Command)
@click.argument("page", type=click.Choice(list(PAGES)), default="sapd")
@click.version_option(package_name="sapd")
def man_command(*, page: str) -> None:
    """Show a manual page: sapd, of the commands, or sapd.toml.

    Where there is no man(1), the page's plain text.
    """
    path = os.path.join(_FOLDER, PAGES[page])
    for viewer, option in _VIEWERS:
        if shutil.which(viewer):
            # Into a pipe or a file through sapd: man(1) ends with 0 also where nothing was written.
            pipe = None if sys.stdout.isatty() else subprocess.PIPE
            shown = subprocess.run([viewer, option, path], check=False, stdout=pipe)
            if shown.returncode == 0:
                if shown.stdout:
                    messages.write(shown.stdout.decode("utf-8", "replace").rstrip("\n"))
                return
    with open(path, encoding="ascii") as file:
        messages.write(plain(file.read()).rstrip("\n"))


def plain(page: str) -> str:
    """The text of a page, for whoever has no program that can set it: see man(7)."""
    rows: list[str] = []
    indent = ""
    in_term = False
    for row in page.splitlines():
        macro, _, rest = row.partition(" ")
        if macro in (".SH", ".SS"):
            rows += ["", rest if macro == ".SH" else f"  {rest}"]
            indent = ""
        elif macro in (".PP", ".IP", ".TP"):
            rows.append("")
            in_term = macro == ".TP"
            indent = "" if macro == ".PP" else indent
        elif not row.startswith("."):
            rows.append(f"    {indent * (not in_term)}{row}")
            indent = "    " if in_term else indent
            in_term = False
    text = re.sub(r"\\f[BIR]", "", "\n".join(rows))
    return re.sub(
        "|".join(map(re.escape, _CHARACTERS)), lambda found: _CHARACTERS[found[0]], text
    ).lstrip("\n")
