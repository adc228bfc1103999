# shellcheck shell=sh
# Shell functions that the set-up scripts share: which Debian packages to install,
# when to keep away from a machine's mail server, and sapd's virtual environment
# in .venv. Sourced, never run. The caller sets `root`, the top folder.

# Programs such as makemap lie where a plain user's PATH does not look.
PATH=$PATH:/usr/sbin:/sbin

fail() {
	echo "$0: $*" >&2
	exit 1
}

as_root() {
	if [ "$(id -u)" = 0 ]; then
		"$@"
	elif command -v sudo >/dev/null; then
		sudo "$@"
	else
		fail "must be run by root, or by a user who may use sudo"
	fi
}

# Run a command as the user to whom the checkout belongs, if root works in it: what is made
# there is then the user's, and makemap, as root, makes no map in a folder of somebody else.
as_owner() {
	owner=$(stat -c %u "$root")
	if [ "$(id -u)" != 0 ] || [ "$owner" = 0 ]; then
		"$@"
	else
		setpriv --reuid "$owner" --regid "$(stat -c %g "$root")" --clear-groups \
			env HOME="$(getent passwd "$owner" | cut -d: -f6)" "$@"
	fi
}

# Say in a line what is done, and do it: quietly TEXT COMMAND... What the command says is
# shown only if it fails.
quietly() {
	what=$1
	shift
	echo "$what"
	said=$(mktemp)
	"$@" >"$said" 2>&1 && ended=0 || ended=$?
	[ "$ended" = 0 ] || cat "$said" >&2
	rm -f "$said"
	[ "$ended" = 0 ] || fail "$what: failed with status $ended"
}

need_python() {
	python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
		fail "needs python3, version 3.11 or newer; Debian 12 and later have it:" \
			"apt-get install python3"
}

# shellcheck disable=SC2016 # the ${...} are dpkg-query's own
installed() {
	[ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# Print the mail server that sendmail's package would replace, if there is one:
# Debian lets only one be installed, and apt removes the other.
# shellcheck disable=SC2016 # the ${...} are dpkg-query's own
other_mta() {
	dpkg-query -W -f '${db:Status-Status} ${Package} ${Provides}\n' |
		awk '/ mail-transport-agent/ && $2 != "sendmail-bin" &&
			$1 != "not-installed" && $1 != "config-files" { print $2 }'
	for program in /usr/sbin/sendmail /usr/lib/sendmail; do
		[ ! -e "$program" ] || echo "$program"
	done
}

# Install those of the named Debian packages that are missing.
need_packages() {
	missing=
	for package; do
		installed "$package" || missing="$missing $package"
	done
	[ -n "$missing" ] || return 0
	command -v apt-get >/dev/null || fail "needs apt-get to install:$missing"
	case "$missing " in
	*" sendmail-bin "*)
		mta=$(other_mta | head -n 1)
		[ -z "$mta" ] ||
			fail "this machine has another mail server, $mta, which installing sendmail would replace: nothing was changed"
		;;
	esac
	# shellcheck disable=SC2016,SC2086,SC2154 # for the inner shell; words; the caller's
	quietly "installing with apt-get:$missing" as_root \
		sh -euc '. "$0"; install_packages "$@"' "$root/examples/quickstart/lib.sh" $missing
	case "$missing " in
	*" sendmail-bin "*)
		echo "sendmail is installed, but neither started nor enabled. To make it the mail server:" \
			"update-rc.d sendmail enable && service sendmail start"
		;;
	esac
}

# As root: install packages without starting the daemons that they bring.
install_packages() {
	policy=/usr/sbin/policy-rc.d
	mark='# Temporary, made and removed by the set-up of sapd: daemons are not to start.'
	# noclobber: a policy of the administrator's own is kept, and obeyed. One with
	# our mark was left by a run that was killed.
	if (set -C && printf '#!/bin/sh\n%s\nexit 101\n' "$mark" >$policy) 2>/dev/null ||
		grep -qxF "$mark" $policy; then
		trap 'rm -f $policy' EXIT
		trap 'exit 1' HUP INT TERM
		chmod 755 $policy
	fi
	installed sendmail-bin && new=no || new=yes
	export DEBIAN_FRONTEND=noninteractive
	apt-get -q update </dev/null || echo "apt-get update failed; trying with the old lists" >&2
	apt-get -q -y --no-install-recommends --no-remove install "$@" </dev/null
	if [ "$new" = yes ] && installed sendmail-bin; then
		update-rc.d sendmail disable
	fi
}

# Make a virtual environment, unless it is there.
make_venv() {
	as_owner "$1/bin/python" -c '' 2>/dev/null && return
	python3 -c 'import ensurepip, venv' 2>/dev/null || need_packages python3-venv
	quietly "making ${1#"$root/"}" as_owner python3 -m venv --clear "$1"
}

# Make .venv, with sapd in it as it stands in this checkout.
need_venv() {
	make_venv "$root/.venv"
	[ -x "$root/.venv/bin/sapd" ] ||
		quietly "installing sapd in .venv" as_owner "$root/.venv/bin/pip" install -e "$root"
}
