"""Whom we trust: the system's certificate authorities, and those of the grid, where there are some.

What must stay true: everything is read once, and by us. OpenSSL would look into the directory at each handshake, on the event
loop; where it is a network file system that hangs, so would the daemon.
"""

from __future__ import annotations

import os
import re
import ssl
from contextlib import suppress
from pathlib import Path

GRID_CAS = "/etc/grid-security/certificates"
"""Where grid software keeps them, unless X509_CERT_DIR says otherwise."""
MAX_CA_BYTES = 1 << 20
"""Of one file; an authority's certificate has some kilobytes."""

_BY_HASH = re.compile(r"[0-9a-f]{8}\.\d")


def grid_cas() -> Path:
    """The directory of the grid's authorities, whether it is there or not."""
    return Path(os.environ.get("X509_CERT_DIR") or GRID_CAS)


def trust() -> ssl.SSLContext:
    """A context that checks certificates against both. Reads files: call it before there is a loop, or in a thread.

    A file that is no certificate is passed over, as OpenSSL does: one broken authority must not cost the others.
    """
    context = ssl.create_default_context()
    with suppress(OSError):
        for path in sorted(grid_cas().iterdir()):
            if _BY_HASH.fullmatch(path.name):
                with suppress(OSError, ValueError), path.open("rb") as file:
                    # Some have a name in other letters in front of the certificate, which is looked for.
                    context.load_verify_locations(cadata=file.read(MAX_CA_BYTES).decode("ascii", "ignore"))
                    # From Python 3.13 on the default is stricter than many of the grid's authorities.
                    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context
