"""The settings that there are, by table, each with a line that shows it. The top has no name."""

from collections.abc import Mapping

Examples = Mapping[str, Mapping[str, str]]

EXAMPLES: Examples = {
    "": {
        "window": 'window = "30m"',
        "formats_directory": 'formats_directory = "/etc/sapd/formats.d"',
        "log": '[[log]], and below it path = "/var/log/mail.log"',
        "access": '[access], and below it server = "postfix"',
        "state": '[state], and below it directory = "/var/lib/sapd"',
        "network": '[[network]], and below it networks = ["10.0.0.0/8"] and window = "8h"',
        "policy": '[policy], and below it never = ["192.0.2.0/24"]',
        "audit": "[audit], and below it keep_lines = 10_000",
    },
    "log": {
        "path": 'path = "/var/log/mail.log"',
        "journal": 'journal = ["_SYSTEMD_UNIT=dovecot.service"]',
        "formats": 'formats = ["dovecot"]',
        "programs": 'programs = ["dovecot-backend"]',
        "frame": 'frame = "busybox"',
        "timezone": 'timezone = "Europe/Berlin"',
        "keep_lines": "keep_lines = 1_000_000",
        "cut_above": "cut_above = 1_100_000",
    },
    "access": {
        "server": 'server = "postfix"',
        "type": 'type = "hash"',
        "source": 'source = "/etc/mail/access" (tcpserver: "/etc/tcp.smtp")',
        "database": 'database = "/var/lib/sapd/relay" (sendmail: "/etc/mail/access.db")',
        "makemap": 'makemap = "/usr/sbin/makemap"',
        "builder": 'builder = "/usr/sbin/postmap"',
        "tag": 'tag = "Connect:"',
        "cf": 'cf = "/etc/mail/sendmail.cf"',
        "self_closing": "self_closing = true",
        "table": 'table = "relays"',
    },
    "state": {"directory": 'directory = "/var/lib/sapd"'},
    "network": {"networks": 'networks = ["10.0.0.0/8"]', "window": 'window = "8h"'},
    "policy": {
        "never": 'never = ["192.0.2.0/24"]',
        "after_logout": 'after_logout = "2m"',
        "max_accounts_per_address": "max_accounts_per_address = 20",
        "one_address_per_account": "one_address_per_account = true",
        "deny_accounts": 'deny_accounts = ["backup", "bob@*"]',
        "client_rate": "client_rate = 30",
        "client_connections": "client_connections = 5",
        "greet_pause": 'greet_pause = "2s"',
    },
    "audit": {"keep_lines": "keep_lines = 10_000", "syslog": "syslog = true"},
}

_LISTS = ("log", "network")


def example(table: str, key: str, examples: Examples = EXAMPLES) -> str | None:
    """A line that shows a setting; None if there is none of that name."""
    return examples.get(table, {}).get(key)


def header(table: str) -> str:
    """The line that begins a table, or where settings without one stand."""
    if not table:
        return "at the top, before the first ["
    return f"in [[{table}]]" if table in _LISTS else f"in [{table}]"


def homes(key: str, examples: Examples = EXAMPLES) -> list[str]:
    """The tables that have a setting of this name."""
    return [table for table, keys in examples.items() if key in keys]
