#!/usr/bin/env bash
# Boots the Debian 13 of tree.sh: its systemd is the first process of a container that
# has this machine's network, and loses what is written in there. No service but the
# journal's is started. Prints that process's ID once it is up, and ends it when standard
# input ends. Arguments go to systemd-nspawn. Exits with 77 where this machine cannot have one; the last line on
# stderr says why.
set -euo pipefail
export PATH="$PATH:/usr/sbin:/sbin"

cannot() { echo "no Debian 13 to boot: $*" >&2; exit 77; }

[ "$(id -u)" = 0 ] || cannot 'only root can'
command -v systemd-nspawn >/dev/null || { echo 'this needs the Debian package systemd-container' >&2; exit 1; }

if [ "${1:-}" != --in-its-own-mounts ]; then
	tree=$("$(dirname "$0")/tree.sh") || exit
	exec unshare --mount --propagation private -- "$0" --in-its-own-mounts "$tree" "$@"
fi
tree=$2
shift 2
# Where control groups are of version 1, or of both, systemd would not boot. Version 2
# is there beside them, and without controllers it still knows which processes are whose.
if [ "$(stat --file-system --format %T /sys/fs/cgroup)" != cgroup2fs ]; then
	umount --recursive /sys/fs/cgroup || cannot 'the control groups of version 1 are in the way'
	mount -t cgroup2 cgroup2 /sys/fs/cgroup || cannot 'the kernel has no control groups of version 2'
fi
group=/sys/fs/cgroup/postern-$$
mkdir "$group"
echo $$ >"$group/cgroup.procs"
log=$(mktemp)
systemd-nspawn --quiet --boot --register=no --keep-unit --volatile=overlay --machine="postern-$$" --directory="$tree" \
	--console=pipe "$@" -- --unit=sysinit.target </dev/null >"$log" 2>&1 &
container=$!
systemd=
finish() {
	kill -KILL "${systemd:-$container}" 2>/dev/null || true
	wait "$container" || true
	echo $$ >/sys/fs/cgroup/cgroup.procs
	find "$group" -depth -type d -exec rmdir {} + || true
	rm -f "$log"
}
trap finish EXIT
for _ in $(seq 100); do
	kill -0 "$container" 2>/dev/null || break
	systemd=$(pgrep --parent "$container") || { sleep 0.1; continue; }
	# "degraded" is up, too.
	case $(nsenter --target "$systemd" --mount --pid --cgroup systemctl is-system-running 2>/dev/null || true) in
	running | degraded)
		echo "$systemd"
		cat >/dev/null
		exit
		;;
	esac
	sleep 0.1
done
cat "$log" >&2
cannot 'systemd does not boot in a container'
