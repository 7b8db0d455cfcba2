"""Trees of files, and files that are still coming."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aglowd.clock import Clock
from aglowd.errors import Permanent
from aglowd.grid.gate import Site
from aglowd.grid.proc import Processes
from aglowd.grid.storage import Entry, Storage
from aglowd.model import Json, Subject
from aglowd.store.store import Store
from aglowd.watchers import trees
from aglowd.watchers.arrivals import KEPT_POLLS, Arrivals
from aglowd.watchers.trees import Trees

from .conftest import world_of


def local(clock: Clock) -> Storage:
    return Storage(Processes(env={}), Site("storage", clock))


async def seen_by(watcher: Any, *subjects: Subject) -> dict[str, Json]:
    """Subject's id → what the watcher says of it."""
    return {subject.id: data for subject, data in await watcher.look(subjects)}


def tree(path: Path, name: str = "s") -> Subject:
    return Subject("tree", name, {"url": path.as_uri()})


def write(path: Path, data: bytes = b"x") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


# --- trees


async def test_all_files_below_a_directory(store: Store, clock: Clock, tmp_path: Path) -> None:
    root = tmp_path / "r"
    for name in ("d/e/c", "b", "a/z"):
        write(root / name, name.encode())
    (root / "empty").mkdir()
    watcher = Trees(world_of(clock, storage=local(clock)), store, 600.0)
    slash = Subject("tree", "slash", {"url": f"{root.as_uri()}/"})
    found = await seen_by(watcher, tree(root), slash, tree(tmp_path / "none", "none"))
    files = [{"url": (root / name).as_uri(), "size_bytes": len(name)} for name in ("a/z", "b", "d/e/c")]
    there = {"absent": False, "problem": "", "files": files}
    assert found == {"s": there, "slash": there, "none": {"absent": True, "problem": "", "files": []}}


@pytest.mark.parametrize(
    ("limit", "what"),
    [("MAX_TREE_FILES", "4 files"), ("MAX_TREE_DIRECTORIES", "4 directories"), ("MAX_TREE_DEPTH", "4 levels")],
)
async def test_a_tree_that_is_too_large_is_a_problem_and_not_cut(
    store: Store, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, what: str
) -> None:
    monkeypatch.setattr(trees, limit, 4)

    def grow(number: int) -> None:
        names = {"MAX_TREE_FILES": f"f{number}", "MAX_TREE_DIRECTORIES": f"d{number}/f"}
        write(tmp_path / "r" / names.get(limit, "/".join(["d"] * number + ["f"])))

    for number in range(1, 5):
        grow(number)
    watcher = Trees(world_of(clock, storage=local(clock)), store, 600.0)
    found = (await seen_by(watcher, tree(tmp_path / "r")))["s"]
    assert (found["problem"], len(found["files"])) == ("", 4)
    grow(5)
    found = (await seen_by(watcher, tree(tmp_path / "r")))["s"]
    assert f"/r holds more than {what}" in found["problem"]
    assert found["files"] == []


async def test_a_link_to_itself_has_an_end(store: Store, clock: Clock, tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "self").symlink_to(tmp_path / "r")
    watcher = Trees(world_of(clock, storage=local(clock)), store, 600.0)
    found = (await seen_by(watcher, tree(tmp_path / "r")))["s"]
    assert f"more than {trees.MAX_TREE_DEPTH} levels" in found["problem"]


async def test_a_door_that_is_closed_half_way_shows_nothing(store: Store, clock: Clock) -> None:
    listings: dict[str, Any] = {
        "x://no": (Entry("x://no/a", 1, False, None), Entry("x://no/d", 0, True, None)),
        "x://no/d": Permanent("forbidden"),
        "x://yes": (Entry("x://yes/a", 1, False, None), Entry("x://yes/d", 0, True, None)),
        "x://yes/d": Permanent("it went away", absent=True),
    }

    class Doors:
        async def list(self, url: str) -> Any:
            if isinstance(listings[url], Exception):
                raise listings[url]
            return listings[url]

    watcher = Trees(world_of(clock, storage=Doors()), store, 600.0)
    found = await seen_by(watcher, *(Subject("tree", name, {"url": f"x://{name}"}) for name in ("no", "yes")))
    files = [{"url": "x://yes/a", "size_bytes": 1}]
    assert found == {"yes": {"absent": False, "problem": "", "files": files}}


# --- arrivals


class Hand:
    """A clock that a test moves; each listing takes a second."""

    def __init__(self) -> None:
        self.time = 1000.0

    def now(self) -> float:
        return self.time

    def real_s(self, world_s: float) -> float:
        return world_s


class Slow(Storage):
    hand: Hand

    async def list(self, url: str) -> tuple[Entry, ...]:
        found = await super().list(url)
        self.hand.time += 1.0
        return found


class Inbox:
    """A directory, the watcher of it, and a clock."""

    def __init__(self, store: Store, clock: Clock, path: Path) -> None:
        self.hand = Hand()
        self.path = path
        storage = Slow(Processes(env={}), Site("storage", clock))
        storage.hand = self.hand
        self.watcher = Arrivals(world_of(self.hand, storage=storage), store, 600.0)  # type: ignore[arg-type]

    async def look(self, after_s: float = 0.0, *, quiet_s: float = 100.0, pattern: str = "*") -> dict[str, bool]:
        """Name → whether it is at rest, at a look that begins so long after the last one has ended."""
        self.hand.time += after_s
        args = {"url": self.path.as_uri(), "pattern": pattern, "quiet_s": quiet_s}
        found = (await seen_by(self.watcher, Subject("arrivals", "s", args)))["s"]
        return {file["url"].rpartition("/")[2]: file["quiet"] for file in found["files"]}


@pytest.fixture
def inbox(store: Store, clock: Clock, tmp_path: Path) -> Inbox:
    return Inbox(store, clock, tmp_path / "inbox")


async def test_a_file_is_at_rest_after_two_looks_that_are_so_far_apart(inbox: Inbox) -> None:
    assert await inbox.look() == {}, "the directory does not exist yet"
    write(inbox.path / "a")
    assert await inbox.look(1000) == {"a": False}, "it was seen once"
    write(inbox.path / "b")
    assert await inbox.look(99) == {"a": False, "b": False}
    assert await inbox.look(1) == {"a": True, "b": False}
    assert await inbox.look(99) == {"a": True, "b": True}


async def test_a_file_that_grows_is_not_at_rest(inbox: Inbox) -> None:
    write(inbox.path / "a", b"x")
    assert await inbox.look() == {"a": False}
    write(inbox.path / "a", b"xx")
    assert await inbox.look(500) == {"a": False}
    assert await inbox.look(100) == {"a": True}
    write(inbox.path / "a", b"xxx")
    assert await inbox.look(100) == {"a": False}, "it goes on"
    (inbox.path / "a").unlink()
    assert await inbox.look(100) == {}
    write(inbox.path / "a", b"xxx")
    assert await inbox.look(100) == {"a": False}, "it is another one"


async def test_only_files_that_are_asked_for_are_shown(inbox: Inbox) -> None:
    for name in ("a.tar", "b.txt", "c.tar.part-0123456789ab"):
        write(inbox.path / name)
    assert await inbox.look(pattern="*.t*") == {"a.tar": False, "b.txt": False}
    assert await inbox.look(100, pattern="*.tar") == {"a.tar": True}


async def test_one_look_is_never_enough(inbox: Inbox) -> None:
    write(inbox.path / "a")
    assert await inbox.look(quiet_s=0.0) == {"a": False}
    assert await inbox.look(quiet_s=0.0) == {"a": True}


async def test_what_nobody_looks_at_is_forgotten(inbox: Inbox, tmp_path: Path) -> None:
    write(inbox.path / "a")
    await inbox.look()
    assert await inbox.look(KEPT_POLLS * 600.0) == {"a": True}
    other = Subject("arrivals", "o", {"url": tmp_path.as_uri(), "pattern": "*", "quiet_s": 1.0})
    inbox.hand.time += KEPT_POLLS * 600.0
    await inbox.watcher.look([other])
    assert await inbox.look() == {"a": False}, "then it takes longer"
