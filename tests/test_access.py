"""Who may read and who may write, as the kernel says who asks. Other users than ours are there only where we are root."""

from __future__ import annotations

import asyncio
import grp
import os
import pwd
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from populated import fill, healthy

from aglowd import access as room
from aglowd.access import Access, Peer, peer_of
from aglowd.cli import exits
from aglowd.clock import Clock
from aglowd.control import Control
from aglowd.store.store import Store

STRANGER = 54_321
"""A uid, and a gid, that nobody has."""
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can ask as somebody else")


# --- the rules


@pytest.mark.parametrize(
    ("peer", "reads", "writes"),
    [
        (Peer(0, frozenset()), True, True),
        (Peer(os.geteuid(), frozenset()), True, True),
        (Peer(4242, frozenset()), True, True),
        (Peer(4243, frozenset({7, 8})), True, False),
        (Peer(4243, frozenset({8})), False, False),
        (Peer(4243, None), True, False),
    ],
)
async def test_who_may(peer: Peer, reads: bool, writes: bool) -> None:
    access = Access([4242])
    assert (await access.may_read(peer, 7), await access.may_write(peer)) == (reads, writes)


async def test_operators_may_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = pwd.getpwnam("nobody")
    access = Access(["nobody", "no-such-user-here"])
    assert await access.may_write(Peer(nobody.pw_uid, frozenset()))
    assert not await access.may_write(Peer(STRANGER, frozenset()))
    access.heed([])
    assert not await access.may_write(Peer(nobody.pw_uid, frozenset())), "whoever is named no more may no more"


async def test_a_host_that_cannot_tell_names_keeps_nobody_else_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "LOOK_UP_REAL_S", 0.05)
    stuck = os.pipe()
    monkeypatch.setattr(pwd, "getpwnam", lambda name: os.read(stuck[0], 1))
    access = Access(["lofar", 4242])
    assert await access.may_write(Peer(4242, frozenset()))
    assert not await access.may_write(Peer(4243, frozenset()))
    os.write(stuck[1], b"x")
    for end in stuck:
        os.close(end)


def test_refusals_are_counted_and_told_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    at = 1000.0
    access = Access()
    assert [access.count_refusal(1, lambda: at) for _ in range(5)] == [1, None, None, None, None]
    at += room.REFUSALS_APART_REAL_S
    assert access.count_refusal(1, lambda: at) == 5
    at += room.REFUSALS_APART_REAL_S
    told = [access.count_refusal(uid, lambda: at) for uid in range(room.MAX_REFUSED_USERS + 9)]
    assert sum(one is not None for one in told) == room.MAX_REFUSED_USERS, "many users make no flood, either"
    at += room.REFUSALS_APART_REAL_S
    assert access.count_refusal(9999, lambda: at) == 1


def test_the_kernel_says_who_is_there() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        peer = peer_of(ours)
    assert peer.uid == os.geteuid()
    assert peer.groups is not None
    assert {os.getegid(), *os.getgroups()} == peer.groups


@as_root
def test_of_who_has_very_many_groups_the_socket_decides() -> None:
    with asking_as(STRANGER, list(range(1000, 1001 + room.MAX_PEER_GROUPS))):
        ours, theirs = socket.socketpair()
    with ours, theirs:
        assert peer_of(ours) == Peer(STRANGER, None)


# --- over the socket


@pytest.fixture
def path() -> Iterator[Path]:
    """Where everybody may pass."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name) / "s"


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = Store(tmp_path / "aglowd.db", Clock())
    await opened.open()
    await fill(opened)
    yield opened
    await opened.close()


@asynccontextmanager
async def served(store: Store, path: Path, access: Access | None = None, group: str = "") -> AsyncIterator[Control]:
    control = Control(store, healthy, store.clock, "1", access=access)
    async with control.serve(path, group):
        yield control


@contextmanager
def asking_as(uid: int, groups: list[int]) -> Iterator[None]:
    """For a moment in which nothing is awaited; the kernel keeps who connected."""
    before = os.getgroups(), os.getegid(), os.geteuid()
    os.setgroups(groups)
    os.setegid(STRANGER)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(before[2])
        os.setegid(before[1])
        os.setgroups(before[0])


async def ask(path: Path, uid: int, groups: list[int], request: str) -> tuple[int, str]:
    """Status and body of the answer to that user; PermissionError if he cannot even connect."""
    end = socket.socket(socket.AF_UNIX)
    try:
        with asking_as(uid, groups):
            end.connect(str(path))
    except OSError:
        end.close()
        raise
    reader, writer = await asyncio.open_unix_connection(sock=end)
    writer.write(f"{request} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}".encode())
    answer = (await reader.read()).decode()
    writer.close()
    return int(answer.split()[1]), answer.partition("\r\n\r\n")[2]


def a_group() -> grp.struct_group:
    return next(one for one in grp.getgrall() if one.gr_gid not in (0, os.getegid(), *os.getgroups()))


@as_root
async def test_a_member_of_the_group_reads_and_an_operator_writes(store: Store, path: Path) -> None:
    group = a_group()
    async with served(store, path, Access([4242]), group.gr_name):
        status = path.stat()
        assert (status.st_gid, status.st_mode & 0o777) == (group.gr_gid, 0o660)
        assert (await ask(path, 4243, [group.gr_gid], "GET /v1/status"))[0] == 200
        code, said = await ask(path, 4243, [group.gr_gid], "POST /v1/cancel")
        assert (code, '"not-permitted"' in said, "uid 4243" in said) == (403, True, True)
        code, said = await ask(path, 4242, [group.gr_gid], "POST /v1/doubt")
        assert (code, '"bad-body"' in said) == (400, True), "he may: it is what he says that makes no sense"
        assert (await ask(path, 4243, [group.gr_gid], "POST /v1/locality"))[0] == 400, "that is reading"
        with pytest.raises(PermissionError):
            await ask(path, 4242, [], "GET /v1/status")


@as_root
async def test_a_socket_that_somebody_opened_to_all_is_open_to_its_group_alone(store: Store, path: Path) -> None:
    async with served(store, path, Access([4242])):
        path.chmod(0o666)
        assert (await ask(path, 4243, [], "GET /v1/status"))[0] == 403
        assert (await ask(path, 4243, [], "GET /live"))[0] == 403
        assert (await ask(path, 4242, [], "GET /v1/status"))[0] == 200


@as_root
async def test_refused_attempts_are_events_and_few(store: Store, path: Path) -> None:
    async with served(store, path):
        path.chmod(0o666)
        for _ in range(20):
            assert (await ask(path, 4243, [], "POST /v1/run"))[0] == 403
        assert (await ask(path, 4244, [], "GET /v1/fields"))[0] == 403
    events = [one["data"] for one in await store.events(most=1000) if one["kind"] == "AccessRefused"]
    assert events == [
        {"uid": 4243, "what": "POST /v1/run", "attempts": 1},
        {"uid": 4244, "what": "GET /v1/fields", "attempts": 1},
    ]


async def test_a_command_says_so_and_ends_with_4(store: Store, path: Path) -> None:
    access = Access()
    access._uids = set()  # We are nobody here, in the group of the socket.
    async with served(store, path, access):
        ended = [
            await command(path, *words) for words in (("fields",), ("pause", "--everything", "--yes"), ("reload",))
        ]
    assert [code for code, _ in ended] == [0, exits.NOT_PERMITTED, exits.NOT_PERMITTED]
    assert exits.NOT_PERMITTED == 4
    assert "may not change anything here: [daemon] operators names who may" in ended[1][1]


async def command(path: Path, *words: str) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-c", "from aglowd.cli.control import main; main()", "--socket", str(path), *words),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    return process.returncode, said.decode()


@as_root
async def test_the_group_may_change_while_it_is_open(store: Store, path: Path) -> None:
    group = a_group()
    async with served(store, path) as control:
        with pytest.raises(PermissionError):
            await ask(path, 4243, [group.gr_gid], "GET /v1/status")
        await control.give_to(group.gr_name)
        assert (await ask(path, 4243, [group.gr_gid], "GET /v1/status"))[0] == 200


@pytest.mark.parametrize("group", ["", "no-such-group-here"])
async def test_without_a_group_the_socket_is_as_it_is_made(store: Store, path: Path, group: str) -> None:
    async with served(store, path, group=group):
        status = path.stat()
        assert (status.st_gid, status.st_mode & 0o777) == (os.getegid(), 0o660)
