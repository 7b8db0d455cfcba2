#!/bin/sh
# Remove what install.sh put there. Configuration, state, and the user of the service stay.
# Usage: uninstall.sh PREFIX [DESTDIR]
set -eu
prefix=$1
dest=${2:-}
if [ -z "$dest" ] && [ -d /run/systemd/system ]; then
    systemctl disable --now aglowd.service 2>/dev/null || true
    systemctl stop 'aglowd@*.service'
fi
rm -rf "$dest$prefix/lib/aglowd" "$dest$prefix/share/doc/aglowd"
rm -f "$dest$prefix/bin/aglowd" "$dest$prefix/bin/aglowctl" \
    "$dest$prefix/lib/systemd/system/aglowd.service" "$dest$prefix/lib/systemd/system/aglowd@.service" \
    "$dest$prefix/lib/systemd/user/aglowd.service" \
    "$dest$prefix/share/bash-completion/completions/aglowctl" "$dest$prefix/share/zsh/site-functions/_aglowctl" \
    "$dest$prefix/share/fish/vendor_completions.d/aglowctl.fish" \
    "$dest$prefix/share/man/man1/aglowctl.1" "$dest$prefix/share/man/man8/aglowd.8" \
    "$dest$prefix/lib/sysusers.d/aglowd.conf" "$dest$prefix/lib/tmpfiles.d/aglowd.conf"
if [ -z "$dest" ] && [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
