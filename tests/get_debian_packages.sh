#!/bin/sh
# Installs what tests use from Debian, where that is possible: Chromium, and OSMesa, with which MuJoCo draws on a machine
# that has neither screen nor graphics card. Without them tests are skipped, except in CI.
set -u
PATH="$PATH:/usr/sbin:/sbin"
have_chromium() { command -v "${CHROMIUM:-chromium}" >/dev/null 2>&1; }
have_osmesa() { ldconfig -p 2>/dev/null | grep -q libOSMesa; }
install() {
    command -v apt-get >/dev/null 2>&1 || return 1
    as_root=""
    [ "$(id -u)" = 0 ] || as_root="sudo -n"
    echo "installing $* for the tests …"
    [ -n "${updated:-}" ] || $as_root apt-get update -qq >/dev/null 2>&1
    updated=1
    DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -qq --no-install-recommends "$@" >/dev/null 2>&1
}
missing=0
if ! have_chromium && ! install chromium fonts-dejavu-core; then
    echo "no chromium: the browser tests will be skipped; get it with \`apt-get install chromium\`, or set CHROMIUM=/path/to/it"
    missing=1
fi
if ! have_osmesa && ! install libosmesa6; then
    echo "no OSMesa: tests that draw with MuJoCo may be skipped; get it with \`apt-get install libosmesa6\`"
    missing=1
fi
[ -z "${CI:-}" ] || [ "$missing" = 0 ]
