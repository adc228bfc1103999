#!/bin/sh
# All of sapd's tests: sh tests/run.sh [PYTEST OPTIONS]
#
# Needs Python 3.11 and apt; installs the servers that the tests start (none is
# left running) and, in .venv-tests, the tools. A machine with another mail server
# than sendmail is left as it is.
#
# The tests are those of the source distribution, and what they try is the wheel
# that is built from it: the checkout's sapd/ is out of the way.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)

# Nothing of the caller's may make or hide a failure: of his environment only that is kept which
# pip and apt go by, and no signal stays ignored, as those are that nohup or & ignore.
if [ "${SAPD_ENVIRONMENT-}" != clean ]; then
	home=${HOME-$(getent passwd "$(id -u)" | cut -d: -f6)}
	set -- "HOME=$home" "PATH=$PATH" LANG=C.UTF-8 SAPD_ENVIRONMENT=clean sh "$0" "$@"
	kept='PIP_[A-Z0-9_]*|[a-z]+_proxy|[A-Z]+_PROXY|SSL_CERT_(FILE|DIR)|APT_CONFIG'
	for name in $(env | grep -oE "^($kept)=" | tr -d =); do
		eval "set -- \"$name=\$$name\" \"\$@\""
	done
	exec env -i --default-signal "$@"
fi
unset SAPD_ENVIRONMENT
umask 022

cd "$root"
. examples/quickstart/lib.sh

need_python
[ "$(id -u)" = 0 ] || command -v sudo >/dev/null ||
	fail "the tests that start servers need root, or sudo. For the others:" \
		"pip install -e . --group test && pytest -m 'not servers and not makemap and not root'"
need_packages sendmail-bin sendmail-cf m4 rsyslog rsyslog-relp openssl cron logrotate systemd \
	iproute2 strace faketime acl e2fsprogs xfsprogs procps db-util bzip2 xz-utils build-essential \
	util-linux mount bsdutils man-db mandoc tinycdb zstd

scratch=$(as_owner mktemp -d)
trap 'as_root rm -rf "$scratch"' EXIT
as_owner chmod 755 "$scratch" # some tests become another user
make_venv "$root/.venv-tests"
tool() {
	program=$root/.venv-tests/bin/$1
	shift
	as_owner "$program" "$@"
}
export PIP_DISABLE_PIP_VERSION_CHECK=1
quietly "updating pip" tool pip install 'pip >= 25.1' # the first that knows --group
quietly "installing the tests' tools" tool pip install --group test --group lint
quietly "building sapd" tool python -m build --outdir "$scratch/dist"
tool pip uninstall -q -y sapd 2>/dev/null # it may have the same version
quietly "installing sapd" tool pip install "$scratch"/dist/sapd-*.whl

tool ruff format --check
tool ruff check
tool mypy

as_root mkdir "$scratch/source"
as_root tar -xzf "$scratch"/dist/sapd-*.tar.gz -C "$scratch/source" --strip-components 1
as_root rm -r "$scratch/source/sapd"
cd "$scratch/source"
as_root env SAPD_DIST="$scratch/dist" "$root/.venv-tests/bin/pytest" -n 4 --dist loadfile "$@"
