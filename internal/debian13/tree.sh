#!/usr/bin/env bash
# Prints the directory of a Debian 13 with its mail servers, for chroot, and
# makes it where it is not there yet. Nothing in it is started. Exits with 77
# where this machine cannot have one; the last line on stderr says why.
set -euo pipefail
export PATH="$PATH:/usr/sbin:/sbin"

cannot() { echo "no Debian 13 for tests: $*" >&2; exit 77; }

[ "$(id -u)" = 0 ] || cannot 'only root can make one'
command -v debootstrap >/dev/null || { echo 'this needs the Debian package debootstrap' >&2; exit 1; }

cache=${XDG_CACHE_HOME:-${HOME:+$HOME/.cache}}
cache=${cache:-${TMPDIR:-/tmp}}/postern
mkdir -p -m 755 "$cache"
# What is made depends on this file alone.
tree=$cache/debian13-$(sha256sum <"$0" | cut -c 1-12)
exec 9>"$cache/lock"
flock 9
if [ -d "$tree" ]; then
	touch "$tree"
	echo "$tree"
	exit
fi

work=$(mktemp -d "$cache/debian13.XXXXXX")
trap 'rm -rf --one-file-system "$work"' EXIT
chmod 755 "$work"
if ! mknod "$work/null" c 1 3 || ! true >"$work/null"; then cannot "$cache cannot hold devices"; fi
rm "$work/null"
# The mirror that this machine uses, if it is a Debian.
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 2>/dev/null |
	grep -v security | head -n 1) || true
mirror=${mirror:-http://deb.debian.org/debian}
wget -q --timeout=20 --tries=2 -O "$work/InRelease" "${mirror%/}/dists/trixie/InRelease" || cannot "$mirror cannot be reached"
rm "$work/InRelease"

inside() { chroot "$work" env DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 HOME=/root "$@" </dev/null; }
{
	debootstrap --variant=minbase --include=dovecot-imapd,dovecot-pop3d,systemd-sysv,procps trixie "$work" "$mirror"
	printf '#!/bin/sh\nexit 101\n' >"$work/usr/sbin/policy-rc.d"
	chmod 755 "$work/usr/sbin/policy-rc.d"
	inside apt-get -q update
	inside apt-get -q -y install --no-install-recommends \
		cyrus-common sasl2-bin libsasl2-modules courier-base courier-authlib-userdb msmtp-mta
	# These conflict with each other, so they are unpacked only.
	inside sh -c 'cd /root && apt-get -q download cyrus-imapd cyrus-pop3d courier-imap courier-pop'
	for package in "$work"/root/*.deb; do dpkg-deb -x "$package" "$work"; done
	# Courier's authentication has one configuration, and one socket.
	sed -i 's/^authmodulelist=.*/authmodulelist="authuserdb"/' "$work/etc/courier/authdaemonrc"
	rm -rf "$work"/root/*.deb "$work"/var/cache/apt/* "$work"/var/lib/apt/lists/* "$work"/usr/share/{doc,locale,man}
} >&2
mv -T "$work" "$tree"
# Those of older versions of this file, once nobody uses them.
find "$cache" -maxdepth 1 -name 'debian13-*' ! -path "$tree" -mtime +7 -exec rm -rf --one-file-system {} +
echo "$tree"
