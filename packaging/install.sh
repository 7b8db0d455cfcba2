#!/bin/sh
# Put aglowd in its place: a Python environment of its own in PREFIX/lib/aglowd, its two commands, its units, its
# manual pages, what shells complete, its documentation, and a configuration if there is none. `make install` calls it, and so do the packages, with DESTDIR.
# Usage: install.sh PYTHON PREFIX [DESTDIR]. It asks the package index for what aglowd needs, unless AGLOWD_WHEELS is a
# directory that holds all of it (pip wheel --wheel-dir DIRECTORY .).
set -eu
python=$1
prefix=$2
dest=${3:-}
cd -- "$(dirname -- "$0")/.."
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    { echo "$python is not Python 3.11 or later; name another one: SYSTEM_PYTHON=/usr/bin/python3.11" >&2; exit 1; }
mkdir -p build
work=$(mktemp -d build/install.XXXXXX)
trap 'rm -rf "$work"' EXIT

# The installer is that of an environment that is thrown away: the one that is left needs none.
"$python" -m venv "$work/venv"
pip="$work/venv/bin/python -m pip --quiet --disable-pip-version-check"
wheels=${AGLOWD_WHEELS:-$work/wheels}
rm -rf build/lib build/bdist.* # What an older build left would be packed as well.
[ -n "${AGLOWD_WHEELS:-}" ] || $pip wheel --wheel-dir "$wheels" .

home=$prefix/lib/aglowd
rm -rf "$dest$home"
"$python" -m venv --without-pip "$dest$home"
$pip --python "$dest$home/bin/python" install --no-index --find-links "$wheels" --no-compile aglowd
# What remembers where it was made is told where it will be.
sed -i "1s|^#!.*|#!$home/bin/python|" "$dest$home"/bin/aglowd "$dest$home"/bin/aglowctl
for file in "$dest$home"/bin/*; do
    case ${file##*/} in python* | aglowd | aglowctl) ;; *) rm "$file" ;; esac
done
sed -i '/^command = /d' "$dest$home/pyvenv.cfg"
"$dest$home/bin/python" -m compileall -q -s "$dest" "$dest$home/lib" || true

install -d "$dest$prefix/bin"
for name in aglowd aglowctl; do ln -sf "../lib/aglowd/bin/$name" "$dest$prefix/bin/$name"; done

unit() { # FILE DIRECTORY: the unit, with the place of the program.
    install -d "$dest$prefix/lib/systemd/$2"
    sed "s|=\(-\{0,1\}\)/usr/bin/aglowd |=\1$prefix/bin/aglowd |" "$1" >"$dest$prefix/lib/systemd/$2/${1##*/}"
    chmod 644 "$dest$prefix/lib/systemd/$2/${1##*/}"
}
unit systemd/aglowd.service system
unit systemd/aglowd@.service system
unit systemd/user/aglowd.service user
install -D -m 644 systemd/sysusers.d/aglowd.conf "$dest$prefix/lib/sysusers.d/aglowd.conf"
install -D -m 644 systemd/tmpfiles.d/aglowd.conf "$dest$prefix/lib/tmpfiles.d/aglowd.conf"

complete() { # SHELL FILE: what that shell must know to complete the names of commands, options and fields.
    install -d "$(dirname "$dest$prefix/share/$2")"
    _AGLOWCTL_COMPLETE=$1_source "$dest$home/bin/python" -c "from aglowd.cli.control import main; main(prog_name='aglowctl')" \
        >"$dest$prefix/share/$2"
    chmod 644 "$dest$prefix/share/$2"
}
complete bash bash-completion/completions/aglowctl
complete zsh zsh/site-functions/_aglowctl
complete fish fish/vendor_completions.d/aglowctl.fish

"$dest$home/bin/python" -m aglowd.cli.manual "$dest$prefix/share/man"

install -d "$dest$prefix/share/doc/aglowd"
install -m 644 README.md CHANGELOG.md LICENSE docs/*.md "$dest$prefix/share/doc/aglowd/"
for page in index start contributing changelog step-api; do # Of the site alone.
    rm -f "$dest$prefix/share/doc/aglowd/$page.md"
done

[ -e "$dest/etc/aglowd/aglowd.toml" ] || install -D -m 644 etc/aglowd.toml "$dest/etc/aglowd/aglowd.toml"
if [ -z "$dest" ] && [ -d /run/systemd/system ]; then
    systemd-sysusers "$prefix/lib/sysusers.d/aglowd.conf"
    systemd-tmpfiles --create "$prefix/lib/tmpfiles.d/aglowd.conf"
    systemctl daemon-reload
fi
