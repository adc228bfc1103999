"""How this machine's mail server asks a map, and what its configuration lacks."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable
from typing import NamedTuple

from sapd import defaults
from sapd.check import table
from sapd.check.look import Look
from sapd.check.running import mail_servers
from sapd.init.page import Section, Setting
from sapd.maps import sendmail_cf

TABLE = "/var/lib/sapd/relay"
"""Where sapd has a table of its own, unless the mail server asks one elsewhere."""

_ENDS = r"(?<![\w-])(?:reject|defer)(?:_unauth_destination)?(?![\w-])"
_TYPES = ("hash", "cdb", "lmdb")
_INSTALLED = {  # the file that tells
    "usr/sbin/postconf": "postfix",
    "usr/sbin/exim4": "exim",
    "usr/sbin/exim": "exim",
    "etc/smtpd.conf": "opensmtpd",
    "etc/mail/sendmail.cf": "sendmail",
    "etc/tcp.smtp": "tcpserver",
}


class Step(NamedTuple):
    """Something that is left to do: what it is for, and commands to paste into a root shell."""

    why: str
    commands: tuple[str, ...]

    def of(self, path: str, sapd: str) -> Step:
        """The same for a configuration that lies elsewhere."""
        named = re.compile(rf"{re.escape(sapd)} (run|init)\b")
        commands = (
            named.sub(lambda found: f"{found[0]} -c {path}", command).replace(defaults.CONFIG, path)
            for command in self.commands
        )
        return self._replace(commands=tuple(commands))


class Proposal(NamedTuple):
    """The section [access], and what the mail server still needs."""

    access: Section
    steps: tuple[Step, ...]


def propose(root: str, sapd: str) -> Proposal:
    """For the mail server that runs, or is installed; `sapd` is how the program is called."""
    running = mail_servers(root)
    there = [name for path, name in _INSTALLED.items() if os.path.exists(os.path.join(root, path))]
    found = [name for name in _PROPOSERS if name in running] or [
        name for name in there if name in _PROPOSERS
    ]
    server = found[0] if found else "sendmail"
    if server in running:
        why = f"The mail server that runs here is {server}."
    elif found:
        why = f"No mail server runs, but {server} is installed."
    else:
        why = "No mail server was found. sendmail is what is assumed without this section."
    others = sorted({*running, *there} - {server})
    if others:
        why += f" There is also {' and '.join(others)}."
    return _PROPOSERS[server](root, sapd, why)


def _access(why: str, server: str, *settings: Setting) -> Section:
    return Section("[access]", why, [Setting("server", server), *settings])


# ---- sendmail ----


def _sendmail(root: str, sapd: str, why: str) -> Proposal:
    text = sendmail_cf.read(os.path.join(root, sendmail_cf.DEFAULT.lstrip("/")))
    steps = [] if _makemap(root) else [Step("sendmail's makemap", (f"{_APT} sendmail-bin",))]
    settings = _separate_map(text)
    if not settings:
        access = sendmail_cf.keyed_maps(text).get("access")
        if access is None or access.database is None:
            access = _USUAL
            steps.append(_sendmail_lines("sendmail asks access.db", f"{sapd} init --sendmail"))
        elif not sendmail_cf.is_asked(text, "access", "sapd:"):
            steps += _closing_by_itself(root, sapd)
        steps += _own_entries(root, access)
        settings = _access_map(access, text, sapd)
    return Proposal(_access(why, "sendmail", *settings), tuple(steps))


_APT = "apt-get install -y"
_USUAL = sendmail_cf.KeyedMap("access", "hash", "/etc/mail/access")


def _separate_map(text: str) -> list[Setting]:
    """For a map of sapd's own, if the rules ask one until when an address is open."""
    for name, keyed in sendmail_cf.keyed_maps(text).items():
        if name != "access" and keyed.database and sendmail_cf.is_asked(text, keyed.name, "sapd:"):
            because = f"sendmail.cf asks its map {keyed.name} until when an address is open."
            return [
                Setting("database", keyed.database, because),
                Setting("type", keyed.kind),
                Setting("self_closing", True),
            ]
    return []


def _access_map(access: sendmail_cf.KeyedMap, text: str, sapd: str) -> list[Setting]:
    because = f"sendmail.cf: K{access.name} {access.kind} {access.file}"
    if access is _USUAL:
        because = "sendmail.cf has no such map yet." if text else "The usual one: no sendmail.cf."
    closes = sendmail_cf.is_asked(text, "access", "sapd:")
    by_itself = (
        "sendmail.cf asks until when an address is open."
        if closes
        else "Better still, sendmail closes by itself, also if cron has stopped: the lines of "
        f"`{sapd} init --sendmail self-closing` go into sendmail.mc, then this is set."
    )
    return [
        Setting("source", access.file, "Your own entries, which sapd reads and never writes."),
        Setting("database", access.file + sendmail_cf.SUFFIXES[access.kind], because),
        Setting("type", access.kind),
        Setting("self_closing", True, by_itself, used=closes),
    ]


def _makemap(root: str) -> bool:
    return any(os.path.exists(os.path.join(root, path.lstrip("/"))) for path in defaults.MAKEMAP)


def _own_entries(root: str, access: sendmail_cf.KeyedMap) -> list[Step]:
    """Where the text is missing: a run would replace what stands in the database alone."""
    if os.path.exists(os.path.join(root, access.file.lstrip("/"))):
        return []
    if os.path.exists(os.path.join(root, str(access.database).lstrip("/"))):
        command = f"makemap -u {access.kind} {access.file} >{access.file}"
        return [Step("your own entries as a text, of which sapd builds the database", (command,))]
    return [Step("a text for your own entries", (f"touch {access.file}",))]


def _sendmail_lines(why: str, printed: str) -> Step:
    """Have sendmail.mc include what a command prints."""
    return Step(
        why,
        (
            f"{printed} >/etc/mail/sapd.m4",
            'sed -i "/^MAILER_DEFINITIONS/i include(\\`/etc/mail/sapd.m4\')dnl"'
            " /etc/mail/sendmail.mc",
            "make -C /etc/mail && service sendmail restart",
        ),
    )


def _closing_by_itself(root: str, sapd: str) -> list[Step]:
    """For a sendmail.mc of the usual shape, that is made into sendmail.cf by make."""
    text = Look().text(os.path.join(root, "etc/mail/sendmail.mc"))
    makes = os.path.exists(os.path.join(root, "etc/mail/Makefile"))
    if not makes or not re.search(r"(?m)^MAILER_DEFINITIONS", text):
        return []
    why = "better, but not needed: sendmail closes by itself, also if cron has stopped"
    step = _sendmail_lines(why, f"{sapd} init --sendmail self-closing")
    setting = f"sed -i 's/^#self_closing/self_closing/' {defaults.CONFIG}"
    return [step._replace(commands=(*step.commands, setting))]


# ---- Postfix ----


def _postfix(root: str, sapd: str, why: str) -> Proposal:
    setting = "smtpd_relay_restrictions"
    words = _postconf("-xh", setting)
    if not words:  # as before Postfix 2.10
        setting = "smtpd_recipient_restrictions"
        words = _postconf("-xh", setting)
    asked = re.search(rf"check_client_access[\s,]+(\w+):(\S*sapd\S*?|{TABLE})(?=[\s,]|$)", words)
    usual = _postconf("-h", "default_database_type")
    kind, database = asked.groups() if asked else (usual if usual in _TYPES else "hash", TABLE)
    because = f"main.cf: {setting} asks it." if asked else "Where sapd makes it."
    default = "`postconf -h default_database_type`." if usual in _TYPES else "The usual one."
    types = "As main.cf has it." if asked else default
    settings = Setting("type", kind, types), Setting("database", database, because)
    steps = () if asked else (_main_cf(setting, words, f"{kind}:{database}", sapd),)
    return Proposal(_access(why, "postfix", *settings), steps)


def _main_cf(setting: str, words: str, named: str, sapd: str) -> Step:
    """Put the table before the first word that refuses, and have it made before it is named."""
    words = re.sub(r"[\s,]+", ", ", words.strip()) if "{" not in words else words.strip()
    table = f"check_client_access {named}"
    end = re.search(_ENDS, words)
    if end is None:
        changed = f"{words}, {table}" if words else table
    else:
        # Mail to one's own domains is let in before: nothing that happens to the table stops it.
        # But not before other checks that stand behind the refusal.
        first = "" if "permit_auth_destination" in words else "permit_auth_destination, "
        first = first if words[end.end() :].strip(", ") == "" else ""
        changed = f"{words[: end.start()]}{first}{table}, {words[end.start() :]}"
    changed = changed.replace("check_client_access, ", "check_client_access ")
    command = f"postconf -e {shlex.quote(f'{setting} = {changed}')}"
    why = "Postfix asks the table, which must be there before main.cf names it"
    return Step(why, (f"{sapd} run", command, "postfix reload"))


def _postconf(*arguments: str) -> str:
    done = table.ask(["postconf", *arguments])
    said = done.said.decode("utf-8", "replace").strip() if done and done.status == 0 else ""
    return said if all(map(str.isprintable, said.splitlines())) else ""


# ---- Exim, OpenSMTPD, tcpserver ----


def _exim(root: str, sapd: str, why: str) -> Proposal:
    texts = [
        done.said.decode("utf-8", "replace")
        for name in ("exim4", "exim")
        if (done := table.ask([name, "-bP", "config"])) is not None and done.status == 0
    ]
    asked = re.search(r"iplsearch\{(/[^}\s]+)\}.*\$tod_epoch", "".join(texts))
    found = asked[1] if asked else TABLE
    because = "Exim's configuration asks it." if asked else "Where sapd makes it."
    access = _access(why, "exim", Setting("database", found, because))
    return Proposal(access, () if asked else (_exim_lines(root, sapd),))


def _exim_lines(root: str, sapd: str) -> Step:
    if not os.path.isdir(os.path.join(root, "etc/exim4/conf.d")):
        why = "Exim asks the table: put these lines where they say, then restart Exim"
        return Step(why, (f"{sapd} init --exim",))
    commands = [
        f"{sapd} init --exim debian-main >/etc/exim4/conf.d/main/000_sapd",
        f"{sapd} init --exim debian-acl >/etc/exim4/conf.d/acl/31_sapd",
        "update-exim4.conf && service exim4 restart",
    ]
    conf = Look().text(os.path.join(root, "etc/exim4/update-exim4.conf.conf"))
    if not re.search(r"(?m)^dc_use_split_config='true'", conf):
        split = "s/^dc_use_split_config=.*/dc_use_split_config='true'/"
        commands.insert(2, f'sed -i "{split}" /etc/exim4/update-exim4.conf.conf')
    return Step("Exim asks the table", tuple(commands))


def _opensmtpd(root: str, sapd: str, why: str) -> Proposal:
    text = re.sub(r"(?m)#.*$", "", Look().text(os.path.join(root, "etc/smtpd.conf")))
    tables = re.findall(r"(?m)^\s*table\s+\"?(\w+)\"?\s+\"?file:([^\s\"]+)", text)
    asked = [
        (name, path)
        for name, path in tables
        if "sapd" in path and re.search(rf"(?m)^\s*match\b.*\bsrc\s+<\"?{name}\"?>", text)
    ]
    name, path = asked[0] if asked else ("relays", TABLE)
    because = "smtpd.conf has it." if asked else "As the lines for smtpd.conf have it."
    settings = Setting("table", name, because), Setting("database", path)
    commands = f"{sapd} init --opensmtpd", f"{sapd} run", "service opensmtpd restart"
    lines = "smtpd asks the table: its lines go into smtpd.conf, in the order that they say"
    steps = () if asked else (Step(lines, commands),)
    return Proposal(_access(why, "opensmtpd", *settings), steps)


def _tcpserver(root: str, sapd: str, why: str) -> Proposal:
    asked = ""
    look, proc = Look(), os.path.join(root, "proc")
    for pid in filter(str.isdigit, look.names(proc)):
        words = " ".join(look.text(os.path.join(proc, pid, "cmdline")).split("\0"))
        if re.match(r"\S*\btcpserver ", words) and (
            found := re.search(r" -x ?(/\S+\.cdb) ", words)
        ):
            asked = found[1]
    database = asked if asked.isprintable() and asked else "/etc/tcp.smtp.cdb"
    source = database.removesuffix(".cdb")
    because = "A tcpserver that runs asks it." if asked else "Where most have it."
    settings = (
        Setting("source", source, "Your own rules, which sapd reads and never writes."),
        Setting("database", database, because),
    )
    lines = f"tcpserver asks the rules by -x {database}: see"
    steps = () if asked else (Step(lines, (f"{sapd} init --tcpserver",)),)
    return Proposal(_access(why, "tcpserver", *settings), steps)


_PROPOSERS: dict[str, Callable[[str, str, str], Proposal]] = {
    "postfix": _postfix,
    "exim": _exim,
    "opensmtpd": _opensmtpd,
    "sendmail": _sendmail,
    "tcpserver": _tcpserver,
}
