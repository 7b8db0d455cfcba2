#!/bin/sh
# An RPM of this tree, in dist/. Usage: rpm.sh PYTHON: that of the system it is for, since what it brings along is built for
# this very one.
set -eu
command -v rpmbuild >/dev/null || { echo "make rpm needs rpmbuild: of the package rpm-build, on Debian rpm" >&2; exit 1; }
cd -- "$(dirname -- "$0")/.."
tree=$(pwd -P)
version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' aglowd/__init__.py)
python=$("$1" -c 'import os, sys; print(os.path.realpath(sys.executable))')
mkdir -p build dist
top=$(mktemp -d "$tree/build/rpm.XXXXXX")
trap 'rm -rf "$top"' EXIT
(umask 022 && rpmbuild -bb --quiet --define "_topdir $top" --define "_rpmdir $tree/dist" --define '_rpmfilename %{NAME}-%{VERSION}.%{ARCH}.rpm' \
    --define "version $version" --define "python $python" --define "tree $tree" packaging/aglowd.spec)
ls "$tree/dist"/aglowd-"$version".*.rpm
