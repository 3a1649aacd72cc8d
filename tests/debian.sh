#!/usr/bin/env bash
# What the scripts of this folder share: words to say, and Debian packages on the machine.

say() {
    printf '\n== %s\n' "$*"
}

fail() {
    printf '%s: %s\n' "$0" "$*" >&2
    exit 1
}

# Installs Debian packages, once the list of packages is there. The daemons among them are not started.
install() {
    say "installing $*"
    local as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null || fail "$* must be installed, and that needs root"
        as_root=(sudo)
    fi
    command -v apt-get >/dev/null || fail "$* must be installed, and there is no apt-get to do it"
    local policy=/usr/sbin/policy-rc.d
    if [ ! -e $policy ]; then
        printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee $policy >/dev/null
        "${as_root[@]}" chmod 755 $policy
        # shellcheck disable=SC2064
        trap "${as_root[*]} rm $policy" RETURN
    fi
    export DEBIAN_FRONTEND=noninteractive
    "${as_root[@]}" apt-get update --quiet=2
    "${as_root[@]}" apt-get install --quiet=2 --no-install-recommends --yes "$@"
}
