"""What loggers put around a stamp, beside host and program: patterns (bytes, no groups). Pure.

A message's facility and priority stand in many spellings (syslog(3) names them): `mail.info`
(busybox, OpenWrt), `mail:info` (AIX), `<mail.info>` and `<2.6>` (FreeBSD's -vv and -v), `<22>`
(RFC 3164 section 4.1.1), `mail.info<22>` (rsyslog's %pri-text%), `mail info`, or one word.
"""

_FACILITY = (
    rb"(?:kern|user|mail|daemon|auth\|security|authpriv|auth|security|syslog|lpr|news|uucp|cron"
    rb"|ftp|ntp|audit|alert|clock|console|local[0-7])"
)
_PRIORITY = rb"(?:emerg|panic|alert|critical|crit|error|err|warning|warn|notice|info|debug)"
_JOINED = _FACILITY + rb"[./|]" + _PRIORITY + rb"(?:<\d{1,3}>)?"

COLON_LEVEL = _FACILITY + b":" + _PRIORITY
"""AIX's spelling."""


def _level(apart: bytes) -> bytes:
    """Facility and priority, joined or `apart`, or the number that stands for both."""
    return (
        rb"(?:" + _FACILITY + rb"(?:[./|]" + _PRIORITY + rb"(?:<\d{1,3}>)?|" + apart + _PRIORITY
        + rb")|<(?:" + _JOINED + rb"|\d{1,2}\.\d|\d{1,3})>|\[" + _JOINED + rb"\]|\(" + _JOINED
        + rb"\))"
    )  # fmt: skip


PLAIN_LEVEL = _level(b" ")
"""Both, or the number that stands for both, in any other spelling."""

LEVEL = _level(b"[ :]")
"""In any spelling."""

WORD = b"(?:" + _FACILITY + b"|" + _PRIORITY + b")"
"""One of them alone, which may as well be a host's name: `mail`."""

CONTAINER = rb"[A-Za-z0-9][\w.-]{0,127} {1,64}\| "
"""What docker compose writes before each line of a container, as long as the longest name."""

BEFORE_STAMP = rb"(?:" + CONTAINER + rb")?(?:<\d{1,3}>1 |[\w-]+: |" + LEVEL + b" ?|" + WORD + b" )?"
"""What may stand before a line's stamp; `word: ` is that of servers in files of their own."""
