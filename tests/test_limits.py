"""Everything that could grow has a limit: the documents name each, and each holds where it is reached."""

from __future__ import annotations

import ast
import asyncio
import importlib
import re
import sqlite3
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web
from support import FarSide, HandClock, Played, Put, begin, decide, do, graph, new_engine, new_reactor, settle_all, step

from aglowd import config, log, pipeline_file, templates, toml_file
from aglowd.clock import Clock
from aglowd.config import load_config, read_secret
from aglowd.errors import Permanent, Temporary, Unknown
from aglowd.grid import catalogue, catalogue_csv, couchdb, dcache, glite, http, lta, picas, surl, words
from aglowd.grid.batch import CHUNK_IDS, Terms
from aglowd.grid.catalogue_csv import CsvCatalogue
from aglowd.grid.gate import Site
from aglowd.grid.http import Http
from aglowd.grid.proc import Processes
from aglowd.handlers.tokens import CreateTokensStep
from aglowd.model import Done, Failed, FieldView, Seen, StepView, Wait
from aglowd.pipeline_file import load_pipeline
from aglowd.store import db, journal
from aglowd.store.store import Store
from aglowd.toml_file import ConfigError
from aglowd.watchers import srm_lists
from aglowd.wiring import handler_kinds

ROOT = Path(__file__).parent.parent
LIMIT = re.compile(
    r"(^|_)(MAX|MOST|LIMIT|CHUNK|KEPT|BATCH|LOOKS|SPLITS)(_|$)|^REASON_CHARS$|^EXCERPT_CHARS$|^LAST_CHARS$"
)


# --- the clocks of others


async def test_clocks_of_hosts_that_answered_long_ago_are_forgotten() -> None:
    """Each answer says what its server's clock shows; an answer without a date says nothing."""

    async def answer(request: web.Request) -> web.Response:
        return web.Response(headers={"Date": "Tue, 24 Nov 2026 12:00:30 GMT"})

    clock = HandClock()
    clock.at = 1_795_521_600.0  # 12:00:00 of that day.
    runner = web.AppRunner(web.Application())
    runner.app.router.add_get("/", answer)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    asked = Http(clock)
    try:
        port = runner.addresses[0][1]
        asked.skews = {f"host{number}": 0.0 for number in range(http.MAX_SKEWS)}
        await asked.request("GET", f"http://127.0.0.1:{port}/", site=Site("x", clock), write=False)
        assert asked.skews["127.0.0.1"] == 30.0
        assert len(asked.skews) == http.MAX_SKEWS
        assert "host0" not in asked.skews
    finally:
        await asked.close()
        await runner.cleanup()


# --- the table


def limits() -> dict[str, float]:
    """Every constant of the daemon that is called a limit, by its module and name."""
    found = {}
    for path in sorted((ROOT / "aglowd").rglob("*.py")):
        module = path.relative_to(ROOT).with_suffix("").parts
        if module[1] in ("sim", "cli", "replay", "sayings"):
            continue  # What commands do by themselves.
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
            if isinstance(target, ast.Name) and LIMIT.search(target.id):
                value = getattr(importlib.import_module(".".join(module)), target.id)
                found[".".join((*module[1:], target.id))] = value
    return found


def test_the_documents_name_every_limit_with_its_value() -> None:
    text = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    section = text.partition("\n## Limits\n")[2].partition("\n## ")[0]
    shown = {
        name: float(value) for name, value in re.findall(r"^\| `([\w.]+)` \| ([\d.e+]+) \| \S", section, re.MULTILINE)
    }
    assert shown == limits()
    assert len(shown) > 50


def test_every_limit_is_met_in_a_test() -> None:
    """By its name: one that nobody ever reaches may as well not hold."""
    text = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    unmet = [name for name in limits() if not re.search(rf"\b{name.rpartition('.')[2]}\b", text)]
    assert unmet == []


# --- what comes in over HTTP


async def exchange(tmp_path: Path, body: bytes, *, write: bool = False, most: int | None = None) -> Any:
    """What our client makes of that answer."""

    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=body)

    app = web.Application()
    app.router.add_route("*", "/", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    client = Http(Clock())
    try:
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
        return await client.request("GET", url, site=Site("x", Clock()), write=write, max_body_bytes=most)
    finally:
        await client.close()
        await runner.cleanup()


async def test_a_body_at_the_limit_is_read_and_a_longer_one_is_no_answer(tmp_path: Path) -> None:
    assert len((await exchange(tmp_path, b"x" * 1000, most=1000)).body) == 1000
    with pytest.raises(Temporary, match="longer than 1000 bytes"):
        await exchange(tmp_path, b"x" * 1001, most=1000)
    with pytest.raises(Unknown, match="longer than 1000 bytes"):
        await exchange(tmp_path, b"x" * 1001, most=1000, write=True)


async def test_fifty_megabytes_are_read_and_more_than_the_limit_is_not(tmp_path: Path) -> None:
    assert len((await exchange(tmp_path, b" " * (50 << 20))).body) == 50 << 20
    with pytest.raises(Temporary, match=f"longer than {http.MAX_BODY_BYTES} bytes"):
        await exchange(tmp_path, b" " * (http.MAX_BODY_BYTES + 1))


@pytest.mark.parametrize("over", [0, 1])
async def test_a_line_of_a_feed(over: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "MAX_LINE_BYTES", 1000)

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"x" * (1000 + over))
        await response.write(b"\n")
        return response

    app = web.Application()
    app.router.add_get("/", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    client = Http(Clock())
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    try:
        async with client.stream("GET", url, site=Site("x", Clock()), read_timeout_s=5.0) as lines:
            feed = lines.__aiter__()
            if over:
                with pytest.raises(Temporary, match="a line is longer than 1000 bytes"):
                    await anext(feed)
            else:
                assert await anext(feed) == b"x" * 1000
            await feed.aclose()
    finally:
        await client.close()
        await runner.cleanup()


# --- what comes in from tools


@pytest.mark.parametrize("write", [False, True])
async def test_a_program_may_print_so_much(tmp_path: Path, write: bool) -> None:
    tool = tmp_path / "tool"
    tool.write_text('#!/bin/sh\nhead -c "$1" /dev/zero; sleep 60 &\n')
    tool.chmod(0o755)
    processes = Processes(env={"PATH": "/usr/bin:/bin"})
    said = await processes.run([str(tool), "5000"], write=write, max_output_bytes=5000)
    assert len(said.stdout) == 5000
    with pytest.raises(Unknown if write else Temporary, match="more than 5000 bytes of output"):
        await processes.run([str(tool), "5001"], write=write, max_output_bytes=5000)


def test_what_is_quoted_is_cut() -> None:
    assert words.quoted("x" * words.REASON_CHARS) == "x" * words.REASON_CHARS
    assert words.quoted("x" * (words.REASON_CHARS + 1)) == "x" * words.REASON_CHARS
    assert words.quoted(" " * words.MAX_SAID_CHARS + "y") == ""
    assert words.quoted(" " * (words.MAX_SAID_CHARS - 1) + "y") == "y"


@pytest.mark.parametrize(
    ("number", "is_one"), [(lta.MAX_NUMBER, True), (lta.MAX_NUMBER + 2, False), (-lta.MAX_NUMBER, True)]
)
def test_a_number_of_the_stager(number: int, is_one: bool) -> None:
    assert (lta.integer(number) == number) is is_one
    assert (lta.integer(float(number)) == number) is is_one


@pytest.mark.parametrize(
    ("count", "believed"), [(couchdb.MAX_COUNT, couchdb.MAX_COUNT), (couchdb.MAX_COUNT + 2, 0), (-1, 0), (True, 1)]
)
def test_a_number_of_documents(count: int, believed: int) -> None:
    assert couchdb.count_of(count) == believed


async def test_questions_are_asked_in_chunks() -> None:
    """One more than a chunk is a second question."""
    sizes: list[int] = []

    class Client:
        async def request(self, *arguments: Any, json: Any = None, **options: Any) -> http.Reply:
            asked = json.get("keys") or json.get("paths")
            sizes.append(len(asked))
            body = (
                [{"path": path} for path in asked] if "paths" in json else {"rows": [{"key": name} for name in asked]}
            )
            return http.Reply(200, {}, msgspec.json.encode(body))

    client: Any = Client()
    site = Site("x", Clock())
    database = picas.Picas(client, site, None, "http://x", "y")  # type: ignore[arg-type] # nobody logs in
    await database.get_docs([f"t{n}" for n in range(couchdb.CHUNK_DOCS + 1)])
    await database.get_docs([f"t{n}" for n in range(couchdb.CHUNK_DOCS_WITH_ATTACHMENTS + 1)], attachments=True)
    srm = "srm://srm.grid.sara.nl:8443/pnfs/L229507_SB{:04d}_uv.tar"
    await dcache.Dcache(client, site, None, "http://x").localities(
        [srm.format(n) for n in range(dcache.CHUNK_PATHS + 1)]
    )
    assert sizes == [couchdb.CHUNK_DOCS, 1, couchdb.CHUNK_DOCS_WITH_ATTACHMENTS, 1, dcache.CHUNK_PATHS, 1]


async def test_jobs_are_asked_about_in_chunks(tmp_path: Path) -> None:
    tool = tmp_path / "glite-wms-job-status"
    tool.write_text(
        '#!/bin/sh\nfor last; do :; done\nwc -l < "$last" >> ' + f"{tmp_path}/sizes\n"
        'while read -r job; do echo "Status info for the Job : $job"; echo "Current Status: Running"; done < "$last"\n'
    )
    tool.chmod(0o755)
    tools = Processes(path=str(tmp_path), env={"PATH": "/usr/bin:/bin"})
    adapter = glite.Glite(
        tools, Site("x", Clock()), Terms(""), endpoint=None, delegation=None, work_dir=tmp_path / "work"
    )
    found = await adapter.status([f"https://wms:9000/{number}" for number in range(CHUNK_IDS + 1)])
    assert len(found) == CHUNK_IDS + 1
    assert (tmp_path / "sizes").read_text().split() == [str(CHUNK_IDS), "1"]


# --- files


SRM = "srm://srm.grid.sara.nl:8443/pnfs/L229507_SB{:03d}_uv.tar"


def test_an_srm_list_has_so_many_lines_of_such_a_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surl, "MAX_LIST_SURLS", 5)
    lines = [SRM.format(number) for number in range(6)]
    assert len(surl.read_srm_list("\n".join(lines[:5]), "list").surls) == 5
    with pytest.raises(surl.SurlListError, match=r"^list:6: found more SURLs; expected at most 5 in one list"):
        surl.read_srm_list("\n".join(lines), "list")
    name = "/L229507_SB000_uv.tar"
    head = "srm://srm.grid.sara.nl:8443/"
    line = head + "x" * (surl.MAX_SURL_CHARS - len(head) - len(name)) + name
    assert surl.parse_surl(line).subband == 0
    with pytest.raises(ValueError, match=f"expected at most {surl.MAX_SURL_CHARS}"):
        surl.parse_surl(line + " ")
    monkeypatch.setattr(srm_lists, "MAX_LIST_BYTES", len(lines[0]))
    path = tmp_path / "srm.txt"
    path.write_text(lines[0])
    assert "problems" not in srm_lists.read_list(str(path))
    path.write_text(lines[0] + "\n")
    assert srm_lists.read_list(str(path)) == {"problems": [f"{path}:1: the list is longer than {len(lines[0])} bytes"]}


def test_problems_of_a_list_are_counted_beyond_the_limit() -> None:
    for more in (0, 1):
        with pytest.raises(surl.SurlListError) as caught:
            surl.read_srm_list("\n".join(["nonsense"] * (surl.MAX_PROBLEMS + more)), "list")
        assert len(caught.value.problems) == surl.MAX_PROBLEMS + more
        assert caught.value.problems[-1].endswith("and 1 problems more") is bool(more)


async def csv_rows(path: Path, text: str) -> tuple[catalogue_csv.Row, ...]:
    path.write_text(text)
    return await CsvCatalogue(path, "me").rows()


async def test_a_catalogue_has_so_many_rows_of_such_a_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "fields.csv"
    columns = "SND,229511,0,16,4,244,229507,0,16,4,244,{},"
    longest = "P" * catalogue.MAX_NAME_CHARS
    (row,) = await csv_rows(path, columns.format(longest))
    assert (row.name, row.problem) == (longest, None)
    (row,) = await csv_rows(path, columns.format(longest + "P"))
    assert row.name == "line-1"
    assert f"expected at most {catalogue.MAX_NAME_CHARS} letters" in str(row.problem)
    fill = "x" * (catalogue_csv.MAX_ROW_CHARS - len(columns.format("P1")))
    (row,) = await csv_rows(path, columns.format("P1") + fill)
    assert row.problem is None
    (row,) = await csv_rows(path, columns.format("P1") + fill + "x")
    assert f"are more than {catalogue_csv.MAX_ROW_CHARS}" in str(row.problem)
    monkeypatch.setattr(catalogue_csv, "MAX_ROWS", 3)
    lines = [columns.format(f"P{number}") for number in range(5)]
    assert len(await csv_rows(path, "\n".join(lines[:4]))) == 4
    with pytest.raises(Permanent, match="at most 3 lines"):
        await csv_rows(path, "\n".join(lines))
    monkeypatch.setattr(catalogue_csv, "MAX_FILE_BYTES", len(lines[0]))
    await csv_rows(path, lines[0])
    with pytest.raises(Permanent, match=f"at most {len(lines[0])} bytes"):
        await csv_rows(path, lines[0] + "\n")


CONFIG = '[catalogue]\npath = "x"\nsrm_dir = "y"\n{}\n[sites.sara]\nresults = "a"\narchive = "b"\n'


def problems(path: Path, text: str) -> list[str]:
    path.write_text(text)
    try:
        load_config(path)
    except ConfigError as error:
        return [problem.what for problem in error.problems]
    return []


def test_a_configuration_is_so_long_and_counts_so_far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "aglowd.toml"
    assert problems(path, CONFIG.format(f"max_fields = {config.MAX_COUNT}")) == []
    (what,) = problems(path, CONFIG.format(f"max_fields = {config.MAX_COUNT + 1}"))
    assert what == f"catalogue.max_fields: {config.MAX_COUNT + 1} is too large"
    (what,) = problems(path, CONFIG.format("") + f"[pools]\na = {config.MAX_COUNT + 1}\nb = {config.MAX_COUNT}\n")
    assert what == f"pools.a: {config.MAX_COUNT + 1} is too large"
    assert problems(path, CONFIG.format("#" + "x" * (toml_file.MAX_LINE_CHARS - 1))) == []
    (what,) = problems(path, CONFIG.format("#" + "x" * toml_file.MAX_LINE_CHARS))
    assert what == f"the line is longer than {toml_file.MAX_LINE_CHARS} characters"
    text = CONFIG.format("")
    monkeypatch.setattr(toml_file, "MAX_FILE_BYTES", len(text))
    assert problems(path, text) == []
    assert problems(path, text + "\n") == [f"cannot be read: it is longer than {len(text)} bytes"]


@pytest.mark.parametrize("rate", ["inf", "nan", "-inf", "0"])
def test_a_clock_runs_at_a_rate(tmp_path: Path, rate: str) -> None:
    (what,) = problems(tmp_path / "aglowd.toml", CONFIG.format("") + f"[clock]\nrate = {rate}\n")
    assert what.endswith("must be positive")


def test_a_secret_is_so_long(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.touch(mode=0o600)
    path.write_text("x" * config.MAX_SECRET_CHARS + "\n")
    assert len(read_secret(str(path))) == config.MAX_SECRET_CHARS
    path.write_text("x" * (config.MAX_SECRET_CHARS + 1))
    with pytest.raises(ConfigError, match=f"longer than {config.MAX_SECRET_CHARS} characters"):
        read_secret(str(path))


KINDS = {kind: handler.Params for kind, handler in handler_kinds().items()}
STEP = '[steps.{}]\nkind = "release"\nrequests = []\n{}\n'


def told(path: Path, text: str) -> list[str]:
    path.write_text(text)
    try:
        load_pipeline(path, KINDS)
    except ConfigError as error:
        return [problem.what for problem in error.problems]
    return []


@pytest.mark.parametrize(
    ("good", "bad", "what"),
    [
        (f"retries = {pipeline_file.MAX_RETRIES}", f"retries = {pipeline_file.MAX_RETRIES + 1}", "retries are at most"),
        (f"priority = {pipeline_file.MAX_PRIORITY}", f"priority = {pipeline_file.MAX_PRIORITY + 1}", "a priority is from"),
        (f"priority = -{pipeline_file.MAX_PRIORITY}", f"priority = -{pipeline_file.MAX_PRIORITY + 1}", "a priority is from"),
    ],
)  # fmt: skip
def test_a_key_of_a_step(tmp_path: Path, good: str, bad: str, what: str) -> None:
    path = tmp_path / "one.toml"
    assert told(path, STEP.format("a", good)) == []
    (found,) = told(path, STEP.format("a", bad))
    assert what in found


def test_a_pipeline_has_so_many_steps_with_such_names(tmp_path: Path) -> None:
    path = tmp_path / "one.toml"
    steps = [STEP.format(f"s{number}", f'needs = ["s{number - 1}"]' if number else "") for number in range(501)]
    assert pipeline_file.MAX_STEPS == 500
    assert told(path, "".join(steps[:500])) == []
    assert told(path, "".join(steps)) == ["there are 501 steps"]
    assert told(path, STEP.format("a" * pipeline_file.MAX_NAME_CHARS, "")) == []
    (found,) = told(path, STEP.format("a" * (pipeline_file.MAX_NAME_CHARS + 1), ""))
    assert "is no name of a step" in found


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        (f"{{{{ 'x' * {templates.MAX_PRODUCT} }}}}", f"{{{{ 'x' * {templates.MAX_PRODUCT + 1} }}}}"),
        (f"{{{{ 2 ** {templates.MAX_POWER_DIGITS // 2} }}}}", f"{{{{ 2 ** {templates.MAX_POWER_DIGITS // 2 + 1} }}}}"),
        ("{{ 1 }}" + "x" * (templates.MAX_TEMPLATE_CHARS - 7), "{{ 1 }}" + "x" * (templates.MAX_TEMPLATE_CHARS - 6)),
    ],
    ids=["product", "power", "length"],
)  # fmt: skip
def test_a_template(good: str, bad: str) -> None:
    assert templates.render(good, {})
    with pytest.raises(templates.TemplateProblem):
        templates.render(bad, {})


def test_a_step_makes_so_many_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aglowd.handlers.tokens.MAX_TOKENS", 3)
    view = StepView("run", "tokens", "P1", 1, {})
    for count in (3, 4):
        files = tuple(f"gsiftp://x/{number}" for number in range(count))
        params = CreateTokensStep.Params(token_type="t", config={}, files=files)
        outcome = CreateTokensStep().react(view, params, Seen())
        if count == 3:
            assert not isinstance(outcome, Failed)
        else:
            assert outcome == Failed("these are more than 3 tokens: give a larger group", final=True)


# --- the store


async def test_an_event_is_cut(store: Store) -> None:
    def add(size: int) -> Any:
        return lambda db: journal.add_event(db, 1.0, "Test", data={"x": "y" * size})

    room = journal.MAX_EVENT_BYTES - len('{"x":""}')
    await store.db.write(add(room))
    await store.db.write(add(room + 1))
    whole, cut = (event["data"] for event in await store.events())
    assert whole == {"x": "y" * room}
    assert cut == {"cut": ('{"x":"' + "y" * (room + 1) + '"}')[: journal.MAX_EVENT_BYTES]}


async def test_transactions_of_one_commit_are_counted(store: Store) -> None:
    before = store.db.commits
    values = await asyncio.gather(*(store.db.write(lambda db: 1) for _ in range(db.GROUP_LIMIT)))
    first = store.db.commits - before
    values += await asyncio.gather(*(store.db.write(lambda db: 1) for _ in range(2 * db.GROUP_LIMIT)))
    assert sum(values) == 3 * db.GROUP_LIMIT
    assert store.db.commits - before - first >= 2
    assert first <= 2


async def count(store: Store, sql: str) -> int:
    def query(db: sqlite3.Connection) -> int:
        return int(db.execute(sql).fetchone()[0])

    return await store.db.read(query)


async def test_history_keeps_what_was_done_and_the_newest_of_the_rest(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "PRUNE_BATCH_EVENTS", 6)
    kinds = ("SubjectChanged", "StepWaits", "StepDone", "EffectDone", "DoubtSettled")

    def fill(db: sqlite3.Connection) -> None:
        for number in range(10):
            journal.add_event(db, 1.0, kinds[number % 5], data={"n": number})

    await store.db.write(fill)
    await store.prune_events(10, 1e12)
    assert await count(store, "SELECT count(*) FROM events") == 10
    await store.db.write(fill)
    await store.db.write(fill)
    await store.prune_events(10, 1e12)
    # Six were looked at, and three of them said how things stood.
    assert await count(store, "SELECT count(*) FROM events") == 30 - 3
    assert [await store.prune_events(10, 1e12) for _ in range(4)] == [6, 6, 2, 0]
    assert await count(store, "SELECT count(*) FROM events WHERE id <= 20") == 12
    assert await count(store, "SELECT count(*) FROM events WHERE id > 20") == 10
    left = {event["kind"] for event in await store.events(most=1000) if event["id"] <= 20}
    assert left == {"StepDone", "EffectDone", "DoubtSettled"}


async def test_what_says_how_things_stood_goes_with_its_age_too(store: Store, clock: HandClock) -> None:
    def fill(db: sqlite3.Connection) -> None:
        for kind in ("StepWaits", "StepDone"):
            journal.add_event(db, clock.now(), kind)

    for _ in range(3):
        await store.db.write(fill)
        clock.advance(100.0)
    assert await store.prune_events(1_000, 250.0) == 2
    assert await store.prune_events(1_000, 250.0) == 0
    kinds = [event["kind"] for event in await store.events()]
    assert kinds == ["StepDone", "StepWaits", "StepDone", "StepWaits", "StepDone"]


async def test_events_that_go_are_of_kinds_that_exist(store: Store) -> None:
    """A kind that is renamed would be kept for ever."""
    kinds = set(re.findall(r"'(\w+)'", db.queries()["prune_events"]))
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "aglowd" / "store").glob("*.py"))
    assert kinds
    assert all(f'"{kind}"' in source for kind in kinds)


async def test_so_many_effects_are_under_way_at_once(store: Store, world: FarSide) -> None:
    world.may_do.clear()
    pipeline = graph("many", step("put"))
    effects = [Put(what=f"thing {number}", ordinal=number) for number in range(5)]
    reactor = new_reactor(store, [Played({"put": do(*effects)})], pipeline)
    await begin(store, pipeline)
    await settle_all(reactor)
    engine = new_engine(store, world, most=3)
    task = asyncio.create_task(engine.run())
    try:
        async with asyncio.timeout(20):
            while world.count("do") < 3:  # noqa: ASYNC110 - nothing rings when a deed begins.
                await asyncio.sleep(0)
            store.bells.effects.set()
            for _ in range(20):
                await asyncio.sleep(0)
            assert (len(engine.busy), world.count("do")) == (3, 3)
            world.may_do.set()
            while world.count("do") < 5:  # noqa: ASYNC110 - as above.
                await asyncio.sleep(0)
            await engine.drain()
    finally:
        task.cancel()
        await asyncio.wait([task])
    assert world.count("do") == 5


async def test_so_many_fields_are_under_way_at_once(store: Store) -> None:
    pipeline = graph("field", step("wait"))
    await store.put_fields([(FieldView(f"F{number}", "SND"), "") for number in range(4)])
    assert await store.admit(pipeline, ("SND",), 3) == 3
    assert await store.admit(pipeline, ("SND",), 3) == 0
    work, *_ = await store.next_dirty()
    await decide(store, pipeline, Done(), work)
    assert await store.admit(pipeline, ("SND",), 3) == 1


async def test_so_many_attempts(store: Store, clock: HandClock) -> None:
    pipeline = graph("retries", step("try", retries=2, retry_delay_s=1.0))
    handler = Played({"try": lambda *_: Failed("no")})
    reactor = new_reactor(store, [handler], pipeline)
    await begin(store, pipeline)
    for _ in range(6):
        await settle_all(reactor)
        clock.advance(2.0)
        await store.due()
    assert handler.asked == ["try"] * 3


async def test_a_wait_has_an_end(store: Store, clock: HandClock) -> None:
    pipeline = graph("waits", step("wait", timeout_s=10.0))
    handler = Played({"wait": lambda *_: Wait((), "nothing", 1e9)})
    reactor = new_reactor(store, [handler], pipeline)
    await begin(store, pipeline)
    await settle_all(reactor)
    clock.advance(9.9)
    await store.due()
    assert await settle_all(reactor) == 0
    clock.advance(0.1)
    await store.due()
    await settle_all(reactor)
    assert await count(store, "SELECT count(*) FROM runs WHERE state = 'failed'") == 1


# --- the log


def test_a_line_is_cut() -> None:
    at, over = "x" * log.MAX_TEXT_CHARS, "x" * (log.MAX_TEXT_CHARS + 1)
    said = log.redact(
        None, "info", {"at": at, "over": over, "many": list(range(log.MAX_ITEMS + 1)), "all": [1] * log.MAX_ITEMS}
    )
    assert said["at"] == at
    assert said["over"] == f"{at}… 1 more"
    assert said["many"] == [*range(log.MAX_ITEMS), "… 1 more"]
    assert said["all"] == [1] * log.MAX_ITEMS
