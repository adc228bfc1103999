#!/bin/sh
# sapd's main job on a small log: sh examples/quickstart/run.sh
#
# Needs Python 3.11 and apt; installs the rest: sendmail's makemap (package
# sendmail-bin, its daemon not started) unless it is there, and sapd in .venv.
# A machine with another mail server is left as it is. May be repeated.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$root"
. examples/quickstart/lib.sh

need_python
command -v makemap >/dev/null || need_packages sendmail-bin
need_venv

show() {
	echo "\$ $*"
	as_owner "$@"
}
# What a run left here before is removed, or there would be nothing to open.
rm -rf examples/quickstart/state examples/quickstart/access.db
# sapd takes no configuration that others may change, nor one in a folder where they may, as
# a clone with umask 002 leaves it.
as_owner chmod go-w examples/quickstart examples/quickstart/sapd.toml
# The log ends at 10:41 on 9 March 2026: act as of four minutes later.
at=2026-03-09T10:45:00+01:00
show .venv/bin/sapd run -v -c examples/quickstart/sapd.toml --at $at
show .venv/bin/sapd list -c examples/quickstart/sapd.toml --at $at
show makemap -u hash examples/quickstart/access.db
