"""What holds where the configuration says nothing; durations as it writes them."""

CONFIG = "/etc/sapd/sapd.toml"
FORMATS_DIRECTORY = "/etc/sapd/formats.d"
STATE_DIRECTORY = "/var/lib/sapd"
WINDOW = "30m"
JOURNALS = ("/var/log/journal", "/run/log/journal")
"""Where journald writes; below it is a folder for each machine, or service manager's namespace."""

MAKEMAP = (
    "/usr/sbin/makemap",  # Debian, Red Hat, FreeBSD
    "/usr/local/sbin/makemap",  # FreeBSD's port
    "/usr/bin/makemap",
    "/usr/libexec/sendmail/makemap",
)
"""Where makemap may lie; the first that is there."""
