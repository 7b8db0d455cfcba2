"""Mistakes in storage: what lies there is misread, or goes with what was not meant."""

from __future__ import annotations

from .kinds import GRID, STORAGE_TESTS, Mutant, mutant

KEPT: tuple[Mutant, ...] = (
    mutant(
        "a look waits for copies at the same place",
        STORAGE_TESTS,
        GRID + "files.py",
        "(place, timeout_s is not None)",
        "(place, False)",
    ),
    mutant(
        "a file that the tools may not see is not there",
        "tests/grid/test_gfal_archive.py",
        GRID + "gfal.py",
        "                if not error.absent:\n                    raise\n                told",
        "                told",
        "write=False, ok=_FORBIDDEN)",
        "write=True)",
    ),
    mutant(
        "WebDAV answers may bring entities along",
        "tests/fuzz/test_webdav_text.py",
        GRID + "webdav_text.py",
        "fromstring(body, forbid_dtd=True)",
        "fromstring(body, forbid_entities=False, forbid_external=False)",
    ),
    mutant(
        "properties that a WebDAV server lacks count as empty ones",
        "tests/grid/test_webdav.py",
        GRID + "webdav_text.py",
        'if (propstat.findtext(f"{_DAV}status") or "HTTP/1.1 200").split()[1:2] == ["200"]:',
        "if True:",
    ),
    mutant(
        "two spellings of a WebDAV name are two names",
        "tests/grid/test_webdav.py",
        GRID + "webdav_text.py",
        '    path = unquote_to_bytes(urlsplit(url).path.encode("utf-8", "surrogateescape"))\n',
        '    path = urlsplit(url).path.encode("utf-8", "surrogateescape")\n',
    ),
    mutant(
        "a size may have any number of digits",
        "tests/fuzz/test_webdav_text.py tests/grid/test_webdav.py",
        GRID + "webdav_text.py",
        're.compile(r"[0-9]{1,19}")',
        're.compile(r"[0-9]+")',
    ),
    mutant(
        "a directory goes with what a WebDAV server tells nothing of",
        "tests/grid/test_webdav.py",
        GRID + "webdav.py",
        "depth=1, unreadable=True)",
        "depth=1)",
    ),
    mutant(
        "a directory goes with its dot files",
        "tests/grid/test_storage_contract.py",
        GRID + "gfal.py",
        '["gfal-ls", "-a", url]',
        '["gfal-ls", url]',
    ),
    mutant(
        "who wants quiet gets it for all hosts",
        "tests/grid/test_hosts.py",
        GRID + "gate.py",
        "        site = self._hosts.pop(host, None)\n",
        '        host = "any"\n        site = self._hosts.pop(host, None)\n',
    ),
    mutant(
        "doors are listed one after the other",
        "tests/watchers/test_listings.py",
        "aglowd/watchers/listings.py",
        'return "/".join(url.split("/")[: 5 if url.startswith("file://") else 3])',
        'return ""',
    ),
    mutant(
        "a directory goes on the word of a listing that cannot be told where it belongs",
        "tests/grid/test_webdav.py",
        GRID + "webdav.py",
        "if here not in rows or (unreadable and others):",
        "if here not in rows:",
    ),
)
