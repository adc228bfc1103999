#!/bin/sh
# All of sapd's tests: sh tests/run.sh [PYTEST OPTIONS]
#
# Needs Python 3.11 and apt; installs the servers that the tests start (none is
# left running) and, in .venv, the tools. A machine with another mail server than
# sendmail is left as it is.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
. examples/quickstart/lib.sh

[ "$(id -u)" = 0 ] || command -v sudo >/dev/null ||
	fail "the tests that start servers need root, or sudo. For the others:" \
		"pip install -e . --group test && pytest -m 'not servers'"
need_python
need_packages sendmail-bin sendmail-cf m4 rsyslog cron logrotate systemd \
	iproute2 strace faketime acl e2fsprogs xfsprogs procps db-util
need_venv
.venv/bin/pip install -q 'pip >= 25.1' # the first that knows --group
.venv/bin/pip install -q -e . --group test --group lint

.venv/bin/ruff format --check
.venv/bin/ruff check
.venv/bin/mypy
# As root, in a checkout that may be somebody else's: leave no caches there.
scratch=$(mktemp -d)
trap 'as_root rm -rf "$scratch"' EXIT
as_root env PYTHONDONTWRITEBYTECODE=1 HYPOTHESIS_STORAGE_DIRECTORY="$scratch" \
	.venv/bin/pytest -p no:cacheprovider -n 2 --dist loadfile "$@"
