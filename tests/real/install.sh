#!/bin/sh
# What the tests with real servers need and this machine lacks: Debian's packages, and two from the package index.
# The argument is the Python that runs the tests. Packages of npm go to a directory of their own outside the repository.
set -eu
packages=""
want() { # PACKAGE FILE…: the package is there when one of the files is.
    package=$1
    shift
    for file in "$@"; do [ -e "$file" ] && return; done
    packages="$packages $package"
}
want apache2-bin /usr/sbin/apache2
want openssl /usr/bin/openssl
want globus-gridftp-server-progs /usr/sbin/globus-gridftp-server
want globus-proxy-utils /usr/bin/grid-proxy-init
want voms-clients /usr/bin/voms-proxy-fake
want gfal2-util-scripts /usr/bin/gfal-copy
want gfal2-plugin-file /usr/lib/*/gfal2-plugins/libgfal_plugin_file.so
want gfal2-plugin-gridftp /usr/lib/*/gfal2-plugins/libgfal_plugin_gridftp.so
want slurm-wlm /usr/sbin/slurmctld
want munge /usr/sbin/munged
want nordugrid-arc-arex /usr/share/arc/arc-arex-ws-start
want mariadb-server-core /usr/sbin/mariadbd
want mariadb-client-core /usr/bin/mariadb
want prometheus /usr/bin/promtool
want zsh /usr/bin/zsh
want fish /usr/bin/fish
if [ -n "$packages" ]; then
    command -v apt-get >/dev/null || { echo "make test-real needs apt-get, or by hand:$packages" >&2; exit 1; }
    [ "$(id -u)" = 0 ] || { echo "make test-real needs root to install:$packages" >&2; exit 1; }
    export DEBIAN_FRONTEND=noninteractive
    # shellcheck disable=SC2086 # They are several words on purpose.
    if ! { apt-get update -qq && apt-get install -qq --no-install-recommends $packages; } >/tmp/aglowd-apt.$$ 2>&1; then
        cat /tmp/aglowd-apt.$$ >&2
        echo "make test-real: these cannot be installed:$packages" >&2
        exit 1
    fi
    rm -f /tmp/aglowd-apt.$$
fi
"$1" -c 'import cheroot, wsgidav' 2>/dev/null || "$1" -m pip install --quiet --disable-pip-version-check cheroot wsgidav

command -v npm >/dev/null || { echo "make test-real needs npm (Node.js 18 or later)" >&2; exit 1; }
modules="${AGLOWD_TEST_CACHE:-$HOME/.cache/aglowd-tests}/couch"
wanted="$(dirname "$0")/couch-package.json"
if ! cmp -s "$wanted" "$modules/installed.json"; then
    mkdir -p "$modules"
    cp "$wanted" "$modules/package.json"
    npm install --prefix "$modules" --omit=optional --ignore-scripts --no-audit --no-fund --loglevel=error
    cp "$wanted" "$modules/installed.json"
fi
