# shellcheck shell=bash
# Installing Debian packages without starting their services. Sourced by
# test/run and bench/run, which call remove_policy when they end.

policy=
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

# install_packages starts no service: whoever needs one brings it up alone.
install_packages() {
	if [ ! -e /usr/sbin/policy-rc.d ]; then
		policy=/usr/sbin/policy-rc.d
		printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
		as_root chmod 755 "$policy"
	fi
	as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=120 update
	as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=120 \
		install --no-install-recommends "$@" </dev/null
}

# remove_policy lets packages start their services again.
remove_policy() {
	if [ -n "$policy" ]; then as_root rm -f "$policy"; fi
}
