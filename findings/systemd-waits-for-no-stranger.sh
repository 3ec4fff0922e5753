#!/usr/bin/env bash
# A service may name another process of its own as its main one (MAINPID= of
# sd_notify), which is how one generation of a program hands over to the next. If that
# process is a child of the old main process, as fork(2) has it, systemd takes the name,
# logs "Supervising process ... which is not our child. We'll most likely not notice
# when it exits.", and remembers that for good, also when the old process has gone:
#
# - With KillMode=mixed "systemctl stop" does not wait for it: SIGTERM, and SIGKILL for
#   all within milliseconds. TimeoutStopSec= is not looked at.
# - When it dies, nobody notices, while the old process lives.
#
# If it is an orphan when it is named (started by a process that exits at once), and so
# a child of systemd, both are as for any main process.
#
# Seen with systemd 257 of Debian 13, booted by systemd-nspawn.
# Needs root, debootstrap, systemd-container. Exits 1 where it is otherwise, 77 where
# nothing can be booted.
set -euo pipefail
work=$(mktemp -d)
trap 'exec 4>&-; wait; rm -rf "$work"' EXIT
mkfifo "$work/input"
"$(dirname "$0")/../internal/debian13/boot.sh" <"$work/input" >"$work/pid" &
booting=$!
exec 4>"$work/input"
until [ -s "$work/pid" ]; do
	kill -0 "$booting" 2>/dev/null || { wait "$booting"; exit; }
	sleep 0.1
done
pid=$(cat "$work/pid")
inside() { nsenter --target "$pid" --mount --uts --ipc --pid --cgroup env -i PATH=/usr/bin "$@"; }

cat >"/proc/$pid/root/usr/local/bin/generations" <<'END'
#!/bin/bash
# Each generation takes three seconds to end.
live() { trap "sleep 3; exit" TERM; while :; do sleep 0.1; done; }
successor() {
	if [ "$1" = child ]; then
		live &
		echo $!
	else
		(live >/dev/null & echo $!) # the subshell exits, and leaves an orphan
	fi
}
successor "$1" >/run/successor
systemd-notify --ready MAINPID="$(cat /run/successor)"
live
END
chmod 755 "/proc/$pid/root/usr/local/bin/generations"

wrong=0
see() { # what, value, expected
	echo "$1: $2"
	[ "$2" = "$3" ] || wrong=1
}
for kind in child orphan; do
	cat >"/proc/$pid/root/run/systemd/system/generations.service" <<-END
		[Service]
		Type=notify
		NotifyAccess=all
		KillMode=mixed
		ExecStart=/usr/local/bin/generations $kind
	END
	inside systemctl daemon-reload
	inside systemctl start generations
	begun=$(date +%s%N)
	inside systemctl stop generations
	waited=$(($(date +%s%N) - begun > 2000000000))
	see "$kind: stop has waited" "$waited" $([ $kind = orphan ] && echo 1 || echo 0)
	inside systemctl start generations
	inside bash -c 'kill -KILL $(cat /run/successor)'
	sleep 1
	see "$kind: killed, and now" "$(inside systemctl is-active generations || true)" $([ $kind = orphan ] && echo failed || echo active)
	inside systemctl kill --signal=KILL generations 2>/dev/null || true
	inside systemctl reset-failed generations 2>/dev/null || true
done
exit $wrong
