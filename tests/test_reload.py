"""A reload in a daemon of which every part is built and no loop runs: what it takes is what a start would have taken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from still import still

from aglowd import reload
from aglowd.errors import AglowError
from aglowd.settings import LIVE
from aglowd.toml_file import ConfigError

PIPELINE = """[pipeline]
name = "toy"
[steps.one]
kind = "http"
url = "http://127.0.0.1:9/"
"""

MAIN = """[daemon]
state_dir = "{0}/state"
socket = "{0}/s"
[catalogue]
path = "{0}/fields.csv"
srm_dir = "{0}"
pipeline = "toy"
[pipelines]
directory = "{0}/pipelines"
[pools]
copies = 1
[sites.sara]
results = "file:///r"
archive = "file:///a"
[sites.sara.jobs]
system = "none"
[jobs]
system = "none"
"""

CHANGED: dict[str, str] = {
    "daemon.audit": '"7m"',
    "daemon.effects": "3",
    "daemon.http_longest": '"7m"',
    "daemon.operators": "[4242]",
    "catalogue.pipeline": '"other"',
    "catalogue.poll": '"7m"',
    "catalogue.max_fields": "7",
    "staging.poll": '"7m"',
    "staging.settle": '"7m"',
    "staging.files_per_request": "7",
    "staging.bytes_per_request": '"7TB"',
    "staging.file_size": '"7GB"',
    "staging.files_at_once": "7",
    "dcache.poll": '"7m"',
    "dcache.space": "true",
    "picas.gather": '"7m"',
    "picas.poll": '"7m"',
    "jobs.nodes_per_submission": "7",
    "jobs.poll": '"7m"',
    "jobs.lost_after": '"7h"',
    "jobs.pilots_at_once": "7",
    "storage.poll": '"7m"',
    "storage.protected": '["file:///keep"]',
    "storage.deletable": '["file:///data/work"]',
    "proxy.poll": '"7m"',
    "proxy.minimum": '"7m"',
    "proxy.warn": '"7m"',
    "notify.gather": '"7m"',
    "notify.apart": '"7m"',
    "notify.command": '["true"]',
    "notify.mail_to": '["a@example.org"]',
    "history.archive_after": '"7d"',
    "history.events_most": "7000",
    "history.events_keep": '"7d"',
    "pools.copies": "7",
    "pools.others": "7",
    "sites.sara.fields_at_once": "7",
    "sites.sara.files_at_once": "7",
    "sites.sara.requests_at_once": "7",
    "sites.sara.files_held": "7",
    "sites.sara.pilots_at_once": "7",
    "sites.sara.jobs.nodes_per_submission": "7",
}
ELSEWHERE = {
    "daemon.log_format": "tests/process/test_reload.py",
    "daemon.log_level": "tests/process/test_reload.py",
    "daemon.stop_timeout": "it is read when it is needed",
    "daemon.socket_group": "tests/test_access.py",
    "jobs.max_pilots": "0 with nobody's jobs",
    "sites.*.jobs.max_pilots": "0 with nobody's jobs",
    "pipelines": "below",
}
RESTART: dict[str, str] = {
    "daemon.processes": "3",
    "daemon.tool_path": '"/opt/grid"',
    "daemon.state_dir": '"/elsewhere"',
    "catalogue.select": '["JND"]',
    "catalogue.srm_dir": '"/elsewhere"',
    "staging.lifetime": '"9d"',
    "picas.database": '"other"',
    "jobs.queue": '"q"',
    "sites.sara.results": '"file:///elsewhere"',
    "sites.poznan.process": '"sara"',
    "storage.third_party": "true",
}


class Files:
    """The files of one daemon."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.main = path / "aglowd.toml"
        self.main.write_text(MAIN.format(path))
        (path / "fields.csv").write_text("")
        (path / "pipelines").mkdir()
        for name in ("toy", "other"):
            self.pipeline(name, PIPELINE.replace("toy", name))
        (path / "aglowd.d").mkdir()

    def pipeline(self, name: str, text: str) -> None:
        (self.path / "pipelines" / f"{name}.toml").write_text(text)

    def drop(self, keys: dict[str, str]) -> None:
        text = "".join(f"{key} = {value}\n" for key, value in keys.items())
        (self.path / "aglowd.d" / "10.toml").write_text(text)


def plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(plain, (*value, *value.values())))
    if isinstance(value, tuple | list | set | frozenset):
        return all(map(plain, value))
    if isinstance(value, msgspec.Struct):
        return all(plain(getattr(value, name)) for name in value.__struct_fields__)
    return value is None or isinstance(value, int | float | str)


VOLATILE = {"progress_at", "_path", "_group"}


def values_of(daemon: Any) -> dict[str, Any]:
    """Every plain value that a part of the daemon holds."""
    desk, world = daemon._control._desk, daemon._world
    parts = {
        "reactor": daemon._reactor,
        "engine": daemon._engine,
        "audit": daemon._audit,
        "upkeep": daemon._upkeep,
        "teller": daemon._teller,
        "http": world.http,
        "access": daemon._access,
        "keeper": daemon._keeper,
        "steering": desk.steering,
        "orders": desk.orders,
        "adoption": desk.adoption,
        "field orders": desk.field_orders,
        "rehearsal": desk.steering._rehearsal,
        **{f"watcher {one.kind}": one for one in daemon._watchers},
    }
    found = {
        f"{part}.{name}": value
        for part, one in parts.items()
        for name, value in vars(one).items()
        if name not in VOLATILE and plain(value)
    }
    found |= {f"world.{name}": getattr(world, name) for name in ("staging_settle_s", "protected", "deletable")}
    found["teller.channels"] = sorted(daemon._teller._channels)
    found["pipelines"] = daemon._pipelines.digests
    found["shown"] = daemon._reactor._shown
    return found


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_every_live_key_is_tried() -> None:
    tried = {".".join("*" if key == "sara" else key for key in name.split(".")) for name in CHANGED}
    for name in LIVE:
        assert name in ELSEWHERE or any(f"{one}.".startswith(f"{name}.") for one in tried), name


async def test_each_live_key_reaches_who_uses_it(files: Files) -> None:
    async with still(files.main) as daemon:
        before = values_of(daemon)
        for key, value in CHANGED.items():
            files.drop({key: value})
            answer = await daemon._reloader.reload(0)
            changed = {one["key"] for one in answer["changes"] if not one["restart"]}
            assert key in changed, key
            assert values_of(daemon) != before, key
            files.drop({})
            await daemon._reloader.reload(0)
            assert values_of(daemon) == before, key


async def test_a_reload_takes_what_a_start_would_have_taken(
    files: Files, tmp_path_factory: pytest.TempPathFactory
) -> None:
    async with still(files.main) as daemon:
        files.drop(CHANGED)
        await daemon._reloader.reload(0)
        reloaded = values_of(daemon)
    async with still(files.main) as fresh:
        assert values_of(fresh) == reloaded


async def test_what_needs_a_restart_reaches_nobody(files: Files) -> None:
    async with still(files.main) as daemon:
        before = values_of(daemon)
        files.drop(RESTART)
        for _ in range(2):  # It is told again as long as it waits.
            answer = await daemon._reloader.reload(0)
            told = {one["key"] for one in answer["changes"]}
            assert all(one["restart"] for one in answer["changes"])
            assert {name for name in RESTART if name != "sites.poznan.process"} | {"sites.poznan"} <= told
        assert values_of(daemon) == before


async def test_a_dry_run_changes_and_records_nothing(files: Files) -> None:
    async with still(files.main) as daemon:
        before, last = values_of(daemon), await daemon._store.last_event()
        files.drop(CHANGED)
        answer = await daemon._reloader.reload(0, "", True)
        assert answer["done"] is False
        assert {"key": "pools.copies", "old": 1, "new": 7, "restart": False} in answer["changes"]
        assert (values_of(daemon), await daemon._store.last_event()) == (before, last)


async def test_what_is_bad_is_refused_whole_and_told_whole(files: Files) -> None:
    async with still(files.main) as daemon:
        before = values_of(daemon)
        files.drop({"pools.copies": "7", "daemon.effects": "0", "catalogue.colour": "1"})
        files.pipeline("toy", PIPELINE.replace('"http"', '"htp"'))
        with pytest.raises(ConfigError) as caught:
            await daemon._reloader.reload(1000, "try")
        assert [one.what.partition(":")[0] for one in caught.value.problems] == [
            "daemon.effects",
            "unknown key 'colour'",
            "step 'one'",
        ]
        assert values_of(daemon) == before
        (event,) = [one for one in await daemon._store.events() if one["kind"] == "ReloadRefused"]
        assert (event["data"]["uid"], event["data"]["reason"], len(event["data"]["problems"])) == (1000, "try", 3)


async def test_pipelines_are_read_anew_and_the_old_ones_stay_known(files: Files) -> None:
    async with still(files.main) as daemon:
        old = daemon._pipelines.current["toy"]
        files.pipeline("toy", PIPELINE.replace("127.0.0.1", "127.0.0.2"))
        files.pipeline("third", PIPELINE.replace("toy", "third"))
        (files.path / "pipelines" / "other.toml").unlink()
        answer = await daemon._reloader.reload(0)
        assert answer["pipelines"] == {"added": ["third"], "changed": ["toy"], "removed": ["other"]}
        assert daemon._pipelines.current["toy"].digest != old.digest
        assert daemon._pipelines.known(old.digest) == old, "runs that live keep theirs"
        assert daemon._control._desk.adoption._pipeline.digest == daemon._pipelines.current["toy"].digest


async def test_a_secret_that_is_new_waits_for_the_restart(files: Files) -> None:
    text = PIPELINE + 'headers = { Authorization = "Bearer secret:fresh" }\n'
    async with still(files.main) as daemon:
        files.pipeline("toy", text)
        with pytest.raises(ConfigError, match="secret:fresh, which is not configured"):
            await daemon._reloader.reload(0)
        files.drop({"secrets.fresh": '"/nowhere"'})
        with pytest.raises(ConfigError, match="secret:fresh, which is new\n    hint: restart aglowd"):
            await daemon._reloader.reload(0)


async def test_the_event_names_what_changed_and_who_did_it(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reload, "MAX_RECORDED", 2)
    monkeypatch.setattr(reload, "MAX_RECORDED_CHARS", 30)
    async with still(files.main) as daemon:
        files.drop({"pools.copies": "7", "storage.protected": f'["file:///{"x" * 100}"]', "proxy.poll": '"1m"'})
        await daemon._reloader.reload(1000, "they asked for it")
        (event,) = [one for one in await daemon._store.events() if one["kind"] == "Reloaded"]
        data = event["data"]
        assert (data["uid"], data["reason"], data["restart"]) == (1000, "they asked for it", [])
        assert len(data["changed"]) == 3
        assert data["changed"][-1] == "1 more"
        assert all(len(line) <= 31 for line in data["changed"])


async def test_a_secret_is_neither_answered_nor_recorded(files: Files) -> None:
    async with still(files.main) as daemon:
        files.drop({"notify.webhook": '"https://hooks.example.org/sesame"', "notify.command": '["tell", "sesame"]'})
        answer = await daemon._reloader.reload(0)
        assert {"notify.webhook", "notify.command"} == {one["key"] for one in answer["changes"]}
        assert "sesame" not in repr(answer) + repr(await daemon._store.events())


async def test_without_a_file_there_is_nothing_to_read(files: Files) -> None:
    async with still(files.main) as daemon:
        daemon._reloader._path = None
        with pytest.raises(AglowError, match="without a configuration file"):
            await daemon._reloader.reload(0)
