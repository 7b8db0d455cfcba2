#!/bin/sh
# A Debian package of this tree, in dist/. Usage: deb.sh PYTHON: that of the Debian it is for, since what it brings along is
# built for this very one.
set -eu
python=$1
cd -- "$(dirname -- "$0")/.."
version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' aglowd/__init__.py)
needs=$("$python" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
arch=$(dpkg --print-architecture)
mkdir -p build dist
top=$(mktemp -d build/deb.XXXXXX)
trap 'rm -rf "$top"' EXIT
chmod 755 "$top"

(umask 022 && packaging/install.sh "$python" /usr "$(realpath "$top")")
mv "$top/usr/share/doc/aglowd/LICENSE" "$top/usr/share/doc/aglowd/copyright"
mkdir "$top/usr/share/zsh/vendor-completions" # Where Debian's zsh looks.
mv "$top/usr/share/zsh/site-functions/_aglowctl" "$top/usr/share/zsh/vendor-completions/"
rmdir "$top/usr/share/zsh/site-functions"
gzip -9n "$top/usr/share/doc/aglowd/CHANGELOG.md" "$top"/usr/share/man/man?/*
mv "$top/usr/share/doc/aglowd/CHANGELOG.md.gz" "$top/usr/share/doc/aglowd/changelog.gz"

size=$(du -sk "$top" | cut -f1)
mkdir "$top/DEBIAN"
sed "s/@VERSION@/$version/; s/@ARCH@/$arch/; s/@SIZE@/$size/; s/@PYTHON@/$needs/" packaging/debian/control >"$top/DEBIAN/control"
install -m 755 packaging/debian/postinst packaging/debian/prerm packaging/debian/postrm "$top/DEBIAN/"
echo /etc/aglowd/aglowd.toml >"$top/DEBIAN/conffiles"
dpkg-deb -Zgzip --root-owner-group --build "$top" "dist/aglowd_${version}_$arch.deb"
