"""Where lines come from: a log's file and its rotated neighbours, or the systemd journal."""
