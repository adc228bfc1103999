"""A view of this machine's folders in which everything may be changed and nothing is.

Programs with fixed paths (cron, dpkg, the set-up scripts) see private, writable copies of the
system's folders: overlays in a mount namespace, gone with the last process that lives in it.
"""

import uuid
from pathlib import Path

FOLDERS = ["/etc", "/usr/local", "/usr/sbin", "/var/lib", "/var/spool"]

_MOUNT = """\
set -eu
stage=$1
mount -t tmpfs tmpfs "$stage"
for folder in {folders}; do
    layers=$stage/layers$folder
    mkdir -p "$layers/upper" "$layers/work"
    mount -t overlay overlay \\
        -o "lowerdir=$folder,upperdir=$layers/upper,workdir=$layers/work" "$folder"
done
mount -t tmpfs tmpfs /run
"""


def private(stage: Path, script: str) -> list[str]:
    """The command that runs a shell script in such a view; `stage` is an empty folder for it."""
    mount = _MOUNT.format(folders=" ".join(FOLDERS))
    return ["unshare", "--mount", "sh", "-c", mount + script, "sh", str(stage)]


_BOOT_ID = "/proc/sys/kernel/random/boot_id"


def another_boot(identity: Path) -> tuple[str, ...]:
    """The prefix of a command that is to see the machine started anew; `identity` is a new file."""
    identity.write_text(f"{uuid.uuid4()}\n")
    script = f'mount --bind "$1" {_BOOT_ID} && shift && exec "$@"'
    return ("unshare", "--mount", "sh", "-euc", script, "sh", str(identity))


def another_zone(name: str) -> tuple[str, ...]:
    """The prefix of a command that is to find this zone in /etc/localtime."""
    bind = f'mount --bind "/usr/share/zoneinfo/{name}" "$(readlink -f /etc/localtime)"'
    return ("unshare", "--mount", "sh", "-euc", f'{bind} && exec "$@"', "sh")
