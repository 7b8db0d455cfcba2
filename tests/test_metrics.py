"""What Prometheus is told, over the sockets that it asks; and the alerts and the dashboard that are made of it."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from populated import fill, healthy
from prometheus_client.parser import text_string_to_metric_families

from aglowd import metrics
from aglowd.clock import Clock
from aglowd.config import ConfigError, load_config
from aglowd.control import Control, LoopHealth
from aglowd.errors import AglowError, Permanent, Temporary, Unknown
from aglowd.grid.gate import LATENCIES_S, Site
from aglowd.metrics import Lag, Metrics
from aglowd.store.store import Store
from aglowd.watchers import WATCHERS
from aglowd.watchers.base import Watcher
from aglowd.watchers.proxies import Proxies

ETC = Path(__file__).parent.parent / "etc"
ALERTS = ETC / "prometheus" / "alerts.yml"
BOARD = ETC / "grafana" / "aglowd.json"


class World:
    """As much of the outside as a watcher looks for when it is made."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock


class Plain(Watcher):
    """Nothing but the loop that watchers share."""

    kind = "plain"


class Scraped:
    """The metrics of a filled store, and what they are made of."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.sites = {name: Site(name, store.clock) for name in ("lta", "picas", "web")}
        world: Any = World(store.clock)
        self.proxies = Proxies(world, store, 900.0)
        self.watcher = Plain(world, store, 300.0)
        self.health = healthy(credentials={"lta": "", "picas": "refused"})
        self.metrics = Metrics(
            store, lambda: self.health, store.clock, "1.2.3", self.sites, (self.proxies, self.watcher)
        )

    async def samples(self) -> dict[str, dict[str, float]]:
        """Name → labels, as `a=b,c=d`, → value."""
        return parsed((await self.metrics.text()).decode())


def parsed(text: str) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            assert labels not in found.setdefault(sample.name, {}), f"{sample.name} {labels} stands there twice"
            found[sample.name][labels] = sample.value
    return found


@pytest.fixture
async def scraped(tmp_path: Path) -> AsyncIterator[Scraped]:
    store = Store(tmp_path / "aglowd.db", Clock())
    await store.open()
    await fill(store)
    yield Scraped(store)
    await store.close()


async def test_what_is_at_work(scraped: Scraped) -> None:
    found = await scraped.samples()
    assert found["aglowd_info"] == {"version=1.2.3": 1}
    assert found["aglowd_fields"] == {
        "state=archived": 1,
        "state=cancelled": 0,
        "state=failed": 1,
        "state=offered": 1,
        "state=running": 1,
    }
    assert found["aglowd_doubts"] == {"": 1}
    assert found["aglowd_effects_under_way"] == {"kind=create_tokens,state=doubt": 1}
    assert found["aglowd_effects_total"] == {"kind=create_tokens,outcome=doubt": 1}
    assert found["aglowd_steps_waiting"] == {"kind=run": 1, "kind=stage": 1, "kind=wait_tokens": 1}
    assert 0 <= found["aglowd_oldest_wait_seconds"]["kind=stage"] < 60
    assert found["aglowd_pool_places"] == {"pool=staging-sara": 2}
    assert found["aglowd_credential_frozen"] == {"credential=lta": 0, "credential=picas": 1}
    assert found["aglowd_loop_progress_age_seconds"] == {"loop=reactor": 0.1}
    assert found["aglowd_loop_grace_seconds"] == {"loop=reactor": 60}
    assert found["aglowd_store_size_bytes"]["part=database"] >= 4096
    assert found["aglowd_disk_free_bytes"][""] <= found["aglowd_disk_size_bytes"][""]
    assert found["process_resident_memory_bytes"][""] > 1e6


async def test_what_outside_systems_answered(scraped: Scraped) -> None:
    site = scraped.sites["picas"]
    for error in (None, Permanent("404"), Temporary("503"), Unknown("reset"), ValueError("ours")):
        try:
            async with site.slot():
                if error is not None:
                    raise error
        except (AglowError, ValueError):
            pass
    site.requests.add("ok", 7.0)
    site.requests.add("ok", 1e6)
    found = await scraped.samples()
    ended = {labels: n for labels, n in found["aglowd_system_requests_total"].items() if n}
    assert ended == {
        "outcome=ok,system=picas": 3,
        "outcome=refused,system=picas": 1,
        "outcome=failed,system=picas": 1,
        "outcome=unknown,system=picas": 1,
        "outcome=broken_off,system=picas": 1,
    }
    assert found["aglowd_system_up"] == {"system=lta": 1, "system=picas": 0, "system=web": 1}
    assert found["aglowd_system_failures"]["system=picas"] == 2
    assert "system=lta" not in found["aglowd_system_last_answer_age_seconds"]
    buckets = found["aglowd_system_request_seconds_bucket"]
    assert buckets["le=5.0,system=picas"] == 5
    assert buckets["le=10.0,system=picas"] == 6
    assert buckets[f"le={LATENCIES_S[-1]},system=picas"] == 6
    assert buckets["le=+Inf,system=picas"] == found["aglowd_system_request_seconds_count"]["system=picas"] == 7
    assert found["aglowd_system_request_seconds_sum"]["system=picas"] >= 1e6


async def test_a_watcher_lags_only_while_something_is_waited_for(scraped: Scraped) -> None:
    assert "aglowd_watcher_lag_seconds" not in await scraped.samples()
    scraped.watcher.last_ok = scraped.store.clock.now() - 1000
    scraped.watcher._waited_for(is_so=True)
    assert (await scraped.samples())["aglowd_watcher_lag_seconds"]["watcher=plain"] < 60, "what was before is no lag"
    scraped.watcher._waited_since = scraped.store.clock.now() - 500
    assert 500 <= (await scraped.samples())["aglowd_watcher_lag_seconds"]["watcher=plain"] < 560
    scraped.watcher.last_ok = scraped.store.clock.now() - 100
    assert 100 <= (await scraped.samples())["aglowd_watcher_lag_seconds"]["watcher=plain"] < 160
    scraped.watcher._waited_for(is_so=False)
    assert "aglowd_watcher_lag_seconds" not in await scraped.samples()


async def test_the_proxy_is_told_of_only_while_it_is_known(scraped: Scraped) -> None:
    scraped.health = msgspec.structs.replace(scraped.health, proxy_seconds_left=None)
    assert "aglowd_proxy_left_seconds" not in await scraped.samples()
    scraped.health = msgspec.structs.replace(scraped.health, proxy_seconds_left=4000.0)
    assert (await scraped.samples())["aglowd_proxy_left_seconds"] == {"": 4000.0}


async def test_a_database_that_cannot_be_read_keeps_back_only_its_own(
    scraped: Scraped, monkeypatch: pytest.MonkeyPatch
) -> None:
    scraped.health = healthy(database="the disk is full")
    monkeypatch.setattr(metrics, "READ_REAL_S", 0.0)
    found = await scraped.samples()
    assert found["aglowd_store_writable"] == {"": 0}
    assert found["aglowd_system_up"]
    assert "aglowd_doubts" not in found


async def test_a_block_of_the_loop_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "LAG_EVERY_REAL_S", 0.0)
    lag, looked = Lag(), asyncio.Event()
    task = asyncio.create_task(lag.run())
    loop = asyncio.get_running_loop()
    await asyncio.sleep(0)
    until = loop.time() + 0.05
    while loop.time() < until:
        pass  # What holds the loop up.
    loop.call_soon(lambda: loop.call_soon(looked.set))
    await looked.wait()
    assert lag.worst_s >= 0.05
    task.cancel()
    await asyncio.wait([task])


async def test_many_scrapes_at_once_read_one_after_the_other(scraped: Scraped) -> None:
    under_way = most = 0
    figures = scraped.store.figures

    async def counted() -> Any:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        try:
            return await figures()
        finally:
            under_way -= 1

    scraped.store.figures = counted  # type: ignore[method-assign] # only counted
    await asyncio.gather(*(scraped.metrics.text() for _ in range(10)))
    assert most == 1


# --- where it is served


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@asynccontextmanager
async def on_tcp(scraped: Scraped) -> AsyncIterator[aiohttp.ClientSession]:
    address = f"127.0.0.1:{free_port()}"
    async with scraped.metrics.serve(address), aiohttp.ClientSession(f"http://{address}") as client:
        yield client


async def test_the_control_socket_serves_them(scraped: Scraped, tmp_path: Path) -> None:
    path = tmp_path / "s"
    server = Control(scraped.store, healthy, scraped.store.clock, "1", metrics=scraped.metrics.answer)
    async with (
        server.serve(path),
        aiohttp.ClientSession("http://aglowd", connector=aiohttp.UnixConnector(str(path))) as client,
        client.get("/metrics") as response,
    ):
        assert response.status == 200
        assert response.headers["Content-Type"].startswith("text/plain; version=")
        assert parsed(await response.text())["aglowd_doubts"] == {"": 1}


async def test_on_tcp_there_is_nothing_else(scraped: Scraped) -> None:
    async with on_tcp(scraped) as client:
        async with client.get("/metrics") as response:
            assert parsed(await response.text())["aglowd_alive"] == {"": 1}
        for path in ("/", "/v1/status", "/v1/fields", "/live"):
            async with client.get(path) as response:
                assert response.status == 404, path
        for method in ("POST", "PUT", "DELETE"):
            async with client.request(method, "/metrics", data=b"x") as response:
                assert response.status == 405, method


async def test_an_address_that_is_taken_is_told(scraped: Scraped) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(AglowError, match=rf"daemon\.metrics: {address} cannot be opened: .*in use"):
            async with scraped.metrics.serve(address):
                pytest.fail("it was opened twice")


@pytest.mark.parametrize(
    ("key", "value", "what"),
    [
        ("metrics", "", ""),
        ("metrics", "127.0.0.1:9750", ""),
        ("metrics", "[::1]:65535", ""),
        ("metrics", "9750", "'9750' is no address"),
        ("metrics", "localhost:0", "'localhost:0' is no address"),
        ("metrics", "localhost:65536", "'localhost:65536' is no address"),
        ("metrics", "http://localhost:9750/", "'http://localhost:9750/' is no address"),
        ("log_file", "/var/log/aglowd/aglowd.log", ""),
        ("log_file", "aglowd.log", "'aglowd.log' is no absolute path"),
    ],
)
def test_where_to_serve_and_to_log_is_checked(tmp_path: Path, key: str, value: str, what: str) -> None:
    path = tmp_path / "aglowd.toml"
    rest = '[catalogue]\nsrm_dir = "/x"\npath = "/x"\n[sites.sara]\nresults = "file:///x"\narchive = "file:///y"\n'
    path.write_text(f'[daemon]\n{key} = "{value}"\n{rest}')
    try:
        assert getattr(load_config(path).daemon, key) == value
        said = ""
    except ConfigError as error:
        (problem,) = error.problems
        assert problem.line == 2
        said = problem.what.removeprefix(f"daemon.{key}: ")
    assert said == what


# --- labels and names


async def test_labels_come_from_bounded_sets(scraped: Scraped) -> None:
    """Nothing that somebody wrote: no field, run, subject, reason or error."""
    scraped.health = healthy(loops={"reactor": LoopHealth(1.0, 2.0, True, defect="ValueError: P229+62")})
    text = (await scraped.metrics.text()).decode()
    used = {name for samples in parsed(text).values() for labels in samples for name in re.findall(r"(\w+)=", labels)}
    allowed = {"version", "state", "kind", "outcome", "site", "system", "watcher", "loop", "pool", "part", "credential"}
    assert used <= {*allowed, "le"}
    assert "P229" not in text


async def test_names_are_as_prometheus_wants_them(scraped: Scraped) -> None:
    text = (await scraped.metrics.text()).decode()
    for family in text_string_to_metric_families(text):
        assert re.fullmatch(r"(aglowd|process)_[a-z0-9_]+", family.name)
        assert family.documentation
        for sample in family.samples:
            assert sample.name.endswith("_total") == (family.type == "counter")
            assert not re.search(r"_(ms|minutes|hours|kb|mb|percent)\b", sample.name)


async def served(scraped: Scraped) -> set[str]:
    """Every name that can be asked for, also where there is nothing to tell of now."""
    scraped.watcher._waited_for(is_so=True)
    scraped.proxies.seconds_left, scraped.proxies._looked_at = 5000.0, scraped.store.clock.now()
    text = (await scraped.metrics.text()).decode()
    families = set(re.findall(r"^# TYPE (\w+) ", text, flags=re.MULTILINE))
    return families | set(parsed(text))


def named(text: str) -> set[str]:
    return set(re.findall(r"\b(?:aglowd|process)_[a-z0-9_]+\b", text))


async def test_the_alerts_name_only_what_is_served(scraped: Scraped) -> None:
    text = re.sub(r"^\s*#.*$", "", ALERTS.read_text(encoding="utf-8"), flags=re.MULTILINE)
    expressions = re.findall(r"^ +expr: (.+)$", text, flags=re.MULTILINE)
    assert len(expressions) == text.count("- alert: ") >= 7
    assert named("\n".join(expressions)) - await served(scraped) == set()
    for wanted in (
        *("up{", "aglowd_doubts", "aglowd_proxy_left_seconds", "aglowd_system_up", "aglowd_loop_progress_age_seconds"),
        *("aglowd_oldest_wait_seconds", "aglowd_disk_free_bytes"),
    ):
        assert any(wanted in one for one in expressions), wanted
    commands = re.findall(r"`(aglowctl \w+)", text)
    assert set(commands) == {"aglowctl status", "aglowctl logs", "aglowctl doubt", "aglowctl explain"}


async def test_the_dashboard_names_only_what_is_served(scraped: Scraped) -> None:
    board = json.loads(BOARD.read_text(encoding="utf-8"))
    expressions = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    expressions += [one["query"] for one in board["templating"]["list"]]
    expressions += [one["expr"] for one in board["annotations"]["list"]]
    assert named("\n".join(expressions)) - await served(scraped) == set()
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids)) > 20
    places = [tuple(panel["gridPos"].values()) for panel in board["panels"]]
    assert len(set(places)) == len(places)
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in board["panels"])


async def test_the_reference_lists_every_metric(scraped: Scraped) -> None:
    text = (ETC.parent / "docs" / "reference.md").read_text(encoding="utf-8")
    section = text.partition("\n## Metrics\n")[2].partition("\n## ")[0]
    listed = set(re.findall(r"^\| `(aglowd_\w+)` \|", section, flags=re.MULTILINE))
    families = re.findall(r"^# TYPE (aglowd_\w+) ", (await scraped.metrics.text()).decode(), flags=re.MULTILINE)
    optional = {"aglowd_proxy_left_seconds"}
    assert listed == {*families, *optional}
    assert len(WATCHERS) > 10
