"""What holds where the configuration says nothing; durations as it writes them."""

CONFIG = "/etc/sapd/sapd.toml"
FORMATS_DIRECTORY = "/etc/sapd/formats.d"
STATE_DIRECTORY = "/var/lib/sapd"
WINDOW = "30m"
