#!/bin/sh
# Installs Debian's Chromium for the browser tests where that is possible; they are skipped without it, except in CI.
set -u
command -v "${CHROMIUM:-chromium}" >/dev/null 2>&1 && exit 0
if command -v apt-get >/dev/null 2>&1; then
    as_root=""
    [ "$(id -u)" = 0 ] || as_root="sudo -n"
    echo "installing chromium for the browser tests …"
    $as_root apt-get update -qq >/dev/null 2>&1
    DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null 2>&1 && exit 0
fi
echo "no chromium: the browser tests will be skipped; get it with \`apt-get install chromium\`, or set CHROMIUM=/path/to/it"
[ -z "${CI:-}" ]
