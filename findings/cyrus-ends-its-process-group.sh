#!/usr/bin/env bash
# Cyrus IMAP's master, told to end, ends every program of its process group that
# runs under the same user id, and not its own children alone.
#
# One expects SIGTERM to the master to stop the master and its services. It
# changes to the user cyrus and then signals its whole group. Started from a
# script or a test runner without setsid, it takes others along: with a chroot,
# other programs that have the same number by chance. (Seen with Dovecot, whose
# user had the number of cyrus in the chroot beside it.)
#
# Debian 13, cyrus-common 3.10.2. Takes a minute.
set -euo pipefail
[ "$(id -u)" = 0 ] || { echo "this needs root, for debootstrap and chroot" >&2; exit 2; }
# What follows has a process group of its own, for the sake of who runs it.
[ "${1:-}" = apart ] || exec setsid --wait "$0" apart
work=$(mktemp -d)
pids=()
cleanup() {
	local pid
	for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
	wait
	rm -rf --one-file-system "$work"
}
trap cleanup EXIT
tree=$work/tree
inside() { chroot "$tree" env DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 "$@" </dev/null; }
fail() { echo "OTHERWISE: $*" >&2; exit 1; }

debootstrap --variant=minbase trixie "$tree" >"$work/log" 2>&1 ||
	{ tail -n 3 "$work/log" >&2; exit 1; }
printf '#!/bin/sh\nexit 101\n' >"$tree/usr/sbin/policy-rc.d"
chmod 755 "$tree/usr/sbin/policy-rc.d"
inside apt-get -q update >"$work/log" 2>&1
inside apt-get -q -y install --no-install-recommends msmtp-mta cyrus-imapd >"$work/log" 2>&1 ||
	{ tail -n 3 "$work/log" >&2; exit 1; }
version=$(inside dpkg-query -W -f '${Version}' cyrus-common)
echo "cyrus-common $version"
[[ $version == 3.10.2* ]] || fail 'another version'

mkdir -p "$tree"/d/{lib/socket,spool,run,sieve}
cat >"$tree/d/imapd.conf" <<'CONF'
configdirectory: /d/lib
proc_path: /d/run/proc
mboxname_lockpath: /d/run/lock
defaultpartition: default
partition-default: /d/spool
sievedir: /d/sieve
CONF
cat >"$tree/d/cyrus.conf" <<'CONF'
START {
}
SERVICES {
  imap cmd="/usr/lib/cyrus/bin/imapd -C /d/imapd.conf" listen="127.0.0.1:11147" prefork=1
}
EVENTS {
}
CONF
inside chown -R cyrus:mail /d

user=$(inside id -u cyrus)
# start_all runs two bystanders, one with the number of cyrus, and the master: in
# this group, or with setsid.
start_all() {
	setpriv --reuid="$user" --clear-groups sleep 300 &
	same=$!
	setpriv --reuid=65534 --clear-groups sleep 300 &
	other=$!
	"$@" chroot "$tree" /usr/lib/cyrus/bin/master -C /d/imapd.conf -M /d/cyrus.conf -p /d/run/pid -D >"$work/out" 2>&1 &
	master=$!
	pids=("$same" "$other" "$master")
	local try
	for try in {1..100}; do
		if (exec 3<>/dev/tcp/127.0.0.1/11147) 2>/dev/null; then return; fi
		sleep .2
	done
	cat "$work/out" >&2
	fail 'Cyrus does not answer'
}
# end_master tells the master alone to end, and prints who is left.
end_master() {
	kill -TERM "$master"
	wait "$master" || true
	sleep 1
	local left=
	if kill -0 "$same" 2>/dev/null; then left+='same-id '; fi
	if kill -0 "$other" 2>/dev/null; then left+='other-id '; fi
	kill "$same" "$other" 2>/dev/null || true
	wait "$same" "$other" 2>/dev/null || true
	pids=()
	echo "left: $left"
}

echo '== in one process group'
start_all env
end_master >"$work/one"
cat "$work/one"
echo '== master in a group of its own'
start_all setsid
end_master >"$work/own"
cat "$work/own"
grep -qx 'left: other-id ' "$work/one" || fail 'in one group the bystander with the same id lives on, or all die'
grep -qx 'left: same-id other-id ' "$work/own" || fail 'with setsid somebody dies, too'
echo 'As said above.'
