#!/bin/sh
# A whole system of its own, in namespaces of its own: systemd as process 1 over a copy of this host that is thrown away.
# Usage, in a new mount, pid, uts, ipc, net and cgroup namespace: systemd_box.sh PLACE PATH… ; PLACE/scenario.sh runs in it as
# root, and PLACE is /mnt. What lies below each PATH can be read there by everybody.
set -eu
place=$1
shift
top=$place/box
mkdir "$top"
mount -t tmpfs -o mode=755 tmpfs "$top"
mkdir "$top/upper" "$top/work" "$top/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$top/upper,workdir=$top/work" "$top/root"
cd "$top/root"

mount -t tmpfs -o mode=1777 tmpfs tmp
for path in "$@"; do
    mkdir -p ".$path"
    parent=$path
    while [ "$parent" != / ]; do
        parent=$(dirname "$parent")
        chmod a+rx ".$parent" 2>/dev/null || true
    done
done
for path in "$@"; do
    mount --bind "$path" ".$path"
done

mount -t proc proc proc
# Else systemd would set this host's own switches.
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=755 tmpfs dev
for name in null zero full random urandom tty; do
    touch dev/$name
    mount --bind /dev/$name dev/$name
done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
mount -t tmpfs -o mode=1777 tmpfs dev/shm
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
touch dev/console

rm -rf etc/systemd/system etc/fstab
mkdir -p etc/systemd/system/multi-user.target.wants
: > etc/machine-id
mount --bind "$place" mnt
cp mnt/*.service etc/systemd/system/
ln -s ../scenario.service etc/systemd/system/multi-user.target.wants/
# A mere chroot would keep everybody in it from making namespaces.
mkdir .host
pivot_root . .host
cd /
umount -l .host
mount --make-rshared /
export container=aglowd-box
exec /lib/systemd/systemd --unit=multi-user.target --log-target=null --show-status=0 systemd.unified_cgroup_hierarchy=1 \
    < /dev/null
