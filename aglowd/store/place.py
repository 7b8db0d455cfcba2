"""Whether a place is fit to hold the database, asked before SQLite opens anything there.

What must stay true: SQLite would make an empty database out of a lost one, and on a network file system neither its
locks nor its shared memory can be relied upon. Both are refused, with what to do instead.
"""

from __future__ import annotations

import os
from pathlib import Path

from aglowd.errors import StoreError

MOUNTS = Path("/proc/self/mountinfo")
NETWORK = frozenset({
    "nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "glusterfs", "lustre", "gpfs", "beegfs", "fuse.sshfs",
    "fuse.glusterfs", "fuse.ceph",
})  # fmt: skip
"""File systems that several hosts can mount at once, by the kernel's names."""


def check_place(path: Path, mounts: Path = MOUNTS) -> None:
    """StoreError unless a database can be, or is, at that path."""
    kind = file_system(path.parent, mounts)
    if kind in NETWORK:
        raise StoreError(
            f"{path.parent} lies on a network file system ({kind}), where the database cannot be safe; "
            "set daemon.state_dir to a directory on a local disk"
        )
    size_bytes = path.stat().st_size if path.exists() else 0
    wal = Path(f"{path}-wal")
    if size_bytes == 0 and (restoring_of(path).exists() or (wal.exists() and wal.stat().st_size > 0)):
        raise StoreError(
            f"{path} is {'empty' if path.exists() else 'missing'}, but what lies beside it shows that it was lost or that "
            "a restore was interrupted; restore the last backup: aglowd restore FILE"
        )


def file_system(directory: Path, mounts: Path = MOUNTS) -> str:
    """The kernel's name of the file system that holds the directory; empty if it cannot be told."""
    device = os.stat(directory).st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in mounts.read_text(encoding="utf-8", errors="replace").splitlines():
        left, _, right = line.partition(" - ")
        if left.split()[2:3] == [number] and right:
            return right.split()[0]
    return ""


def restoring_of(path: Path) -> Path:
    """Where a restore prepares the database that it puts in place."""
    return path.with_name(f"{path.name}.restoring")
