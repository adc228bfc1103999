#!/bin/sh
# The README's two commands on a bare Debian: sh tests/fresh.sh [12|13] [PYTEST OPTIONS]
#
# sh tests/fresh.sh 12|13 sendmail|postfix|installers tries a set-up there instead, from nothing to
# a relay that opens, closes, is upgraded and removed: see tests/setup.py.
#
# As root, with debootstrap; takes 3 GB in TMPDIR, or /var/tmp. The system stands in a
# private folder that is removed at the end; nothing of it is seen from outside, and no
# process of it stays. It gets git and python3, a user's clone of what was last
# committed here, and of this machine's settings the mirror, the proxy and the
# certificates by which apt and pip reach their packages.
#
# SAPD_FRESH_BASE=FILE keeps the bare system as a tar archive, for the next time.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)

fail() {
	echo "$0: $*" >&2
	exit 1
}

release=${1-12}
[ $# = 0 ] || shift
case $release in
12) suite=bookworm ;;
13) suite=trixie ;;
*) fail "knows Debian 12 and 13, not $release" ;;
esac
[ "$(id -u)" = 0 ] || fail "must be run by root"
for program in debootstrap git; do
	command -v $program >/dev/null || fail "needs $program: apt-get install $program"
done

folder=$(mktemp -d "${TMPDIR:-/var/tmp}/sapd-fresh-XXXXXX")
trap 'rm -rf --one-file-system "$folder"' EXIT
trap 'exit 1' HUP INT TERM
new=$folder/system
mkdir "$new"

http_proxy=${http_proxy-}
eval "$(apt-config shell http_proxy Acquire::http::Proxy)"
export http_proxy
base=${SAPD_FRESH_BASE-}
if [ -n "$base" ] && [ -e "$base" ]; then
	tar -xf "$base" -C "$new"
else
	# shellcheck disable=SC2016 # apt-get's own
	mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Label: Debian' |
		head -n 1)
	echo "making a bare Debian $release"
	# shellcheck disable=SC2086 # no mirror is no word
	unshare --mount debootstrap --variant=minbase $suite "$new" $mirror >"$folder/log" 2>&1 || {
		cat "$folder/log" >&2
		fail "debootstrap failed"
	}
	if [ -n "$base" ]; then
		tar -cf "$base.new" -C "$new" .
		mv "$base.new" "$base"
	fi
fi

# How apt and pip reach their packages from here.
apt-config dump | grep -E '^Acquire::(https?|Retries|ForceIPv)' >"$new/etc/apt/apt.conf.d/99machine" || :
cp /etc/resolv.conf "$new/etc/resolv.conf"
mkdir -p "$new/usr/local/share/ca-certificates"
find /usr/local/share/ca-certificates -name '*.crt' \
	-exec cp {} "$new/usr/local/share/ca-certificates" \; 2>/dev/null || :
echo "[global]" >"$new/etc/pip.conf"
certificates=${PIP_CERT-${SSL_CERT_FILE-}}
if [ -n "$certificates" ]; then
	install -D -m 644 "$certificates" "$new/etc/ssl/machine.crt"
	echo "cert = /etc/ssl/machine.crt" >>"$new/etc/pip.conf"
fi
[ -z "${PIP_INDEX_URL-}" ] || echo "index-url = $PIP_INDEX_URL" >>"$new/etc/pip.conf"
[ -z "${https_proxy-}" ] || echo "proxy = $https_proxy" >>"$new/etc/pip.conf"
echo fresh >"$new/etc/hostname"
printf '%s\n' "127.0.0.1 localhost" "::1 localhost" "127.0.1.1 fresh" >"$new/etc/hosts"

[ -z "$(git -c safe.directory='*' -C "$root" status --porcelain)" ] ||
	echo "what is not committed is not tried"
git -c safe.directory='*' -C "$root" bundle create -q "$new/sapd.bundle" HEAD
cat >"$new/try.sh" <<'INSIDE'
set -eu
export PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive
{
	apt-get -q update && apt-get -q -y --no-install-recommends install git python3
} >/log 2>&1 </dev/null || { cat /log; exit 1; }
case ${1-} in
sendmail | postfix | installers)
	umask 022
	git clone -q /sapd.bundle /root/sapd
	cd /root/sapd
	exec env -i PATH=/usr/local/sbin:/usr/local/bin:$PATH HOME=/root python3 tests/setup.py "$1"
	;;
esac
useradd --create-home joe
setpriv --reuid joe --regid joe --init-groups env HOME=/home/joe \
	sh -c 'umask 002; git -c advice.detachedHead=false -c init.defaultBranch=main clone -q /sapd.bundle /home/joe/sapd'
cd /home/joe/sapd
failed=0
try() {
	echo "\$ $*"
	began=$(date +%s)
	env -i PATH=/usr/bin:/bin "$@" && ended=0 || ended=$?
	echo "$*: status $ended after $(($(date +%s) - began)) s, Debian $(cat /etc/debian_version)"
	[ "$ended" = 0 ] || failed=1
}
try sh examples/quickstart/run.sh
try sh tests/run.sh "$@"
exit $failed
INSIDE

# The first process waits for all others whose parents have ended, as an init does.
unshare --mount --uts --ipc --pid --fork --kill-child sh -euc '
	new=$1
	shift
	hostname fresh
	mount --bind "$new" "$new"
	mount -t proc proc "$new/proc"
	mount --rbind /sys "$new/sys"
	mount --rbind /dev "$new/dev"
	mount -t tmpfs -o mode=755 tmpfs "$new/run"
	mkdir "$new/old"
	cd "$new"
	pivot_root . old
	umount -l /old
	rmdir /old
	sh /try.sh "$@" &
	wait $!
' sh "$new" "$@"
