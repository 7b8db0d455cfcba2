"""How fast changes are read, against aiohttp reading the same bytes, split by hand and decoded with msgspec.

A server of its own process gives the changes of a whole survey from memory: as lines that never end, and as pages. Each way
of reading is a process of its own, in turns (`python -m bench.feed PART ARGUMENT…`, one JSON object each), so that neither
heats anything for the other.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import aiohttp
import msgspec
from aiohttp import web

from aglowd.clock import Clock
from aglowd.grid.couchdb_feed import PAGE_CHANGES, Change
from aglowd.grid.gate import Credential, Site
from aglowd.grid.http import Http
from aglowd.grid.picas import Picas

DATABASE = "sksp"
SEQ_CHARS = 342
"""CouchDB's sequences grow with its shards; a line of a survey's feed has 444 bytes with them."""
CHUNK_LINES = 150
"""As many come in one write, as CouchDB gathers what it has at hand."""
TURNS = 3
ROOT = Path(__file__).parent.parent
WAYS = ("lines", "pages")


class Row(msgspec.Struct):
    """What the bare reader decodes of a line: as much as ours."""

    id: str
    seq: str
    deleted: bool = False


class Page(msgspec.Struct):
    """What it decodes of a page."""

    results: list[Row]
    last_seq: str
    pending: int = 0


def line_of(number: int) -> bytes:
    """One change, as CouchDB writes it."""
    seq = f"{number}-{'g1AAAACT' * 60}"[:SEQ_CHARS]
    rev = f"3-{number:032x}"
    return json.dumps(
        {"seq": seq, "id": f"P{number // 244:03d}+40-target:SB{number % 244:03d}", "changes": [{"rev": rev}]}
    ).encode()


async def serve(count: int) -> None:
    """Give them to whoever asks until standard input ends; a line says where."""
    lines = [line_of(number) for number in range(1, count + 1)]
    blocks = [b"\n".join(lines[at : at + CHUNK_LINES]) + b"\n" for at in range(0, count, CHUNK_LINES)]
    pages = []
    for at in range(0, count, PAGE_CHANGES):
        rows = lines[at : at + PAGE_CHANGES]
        pending = count - at - len(rows)
        end = b'],"last_seq":"%d","pending":%d}' % (at + len(rows), pending)
        pages.append(b'{"results":[' + b",\n".join(rows) + end)

    async def changes(request: web.Request) -> web.StreamResponse:
        if request.query["feed"] != "continuous":
            return web.Response(
                body=pages[int(request.query["since"]) // PAGE_CHANGES], content_type="application/json"
            )
        response = web.StreamResponse()
        await response.prepare(request)
        for block in blocks:
            await response.write(block)
        await response.write(b"\n")
        await asyncio.sleep(3600)
        return response

    application = web.Application()
    application.router.add_get(f"/{DATABASE}/_changes", changes)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    size_bytes = sum(map(len, blocks))
    told = {"url": f"http://127.0.0.1:{runner.addresses[0][1]}", "line_bytes": size_bytes / count}
    print(json.dumps(told), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


async def read_ours(url: str, way: str, count: int) -> int:
    """By the product's client; how many changes it told."""
    clock, told = Clock(), 0
    http = Http(clock)
    picas = Picas(http, Site("picas", clock), Credential("picas", user="bench", password="bench"), url, DATABASE)
    async with aclosing(picas.changes(None if way == "lines" else "0")) as feed:  # type: ignore[type-var] # a generator
        async for item in feed:
            told += isinstance(item, Change)
            if told == count:
                break
    await http.close()
    return told


async def read_bare(url: str, way: str, count: int) -> int:
    """By hand."""
    told, decode = 0, msgspec.json.Decoder(Row).decode
    async with aiohttp.ClientSession() as session:
        if way == "pages":
            while told < count:
                query = {"feed": "normal", "limit": str(PAGE_CHANGES), "since": str(told)}
                async with session.get(f"{url}/{DATABASE}/_changes", params=query) as answer:
                    told += len(msgspec.json.decode(await answer.read(), type=Page).results)
            return told
        async with session.get(f"{url}/{DATABASE}/_changes", params={"feed": "continuous", "since": "now"}) as answer:
            rest = b""
            async for chunk in answer.content.iter_any():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    if line:
                        told += bool(decode(line).id)
                if told == count:
                    break
            answer.close()
    return told


def timed(who: str, url: str, way: str, count: int) -> dict[str, float]:
    """Seconds and CPU seconds that it took."""
    cpu, began = time.process_time(), time.perf_counter()
    told = asyncio.run({"ours": read_ours, "bare": read_bare}[who](url, way, count))
    if told != count:
        raise RuntimeError(f"{count} changes were given, {told} were read")
    return {"s": time.perf_counter() - began, "cpu_s": time.process_time() - cpu}


@contextmanager
def served(count: int) -> Iterator[dict[str, Any]]:
    """A server of so many changes; where it is."""
    argv = [sys.executable, "-m", "bench.feed", "serve", str(count)]
    with subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        try:
            yield json.loads(server.stdout.readline())
        finally:
            server.communicate()


def measure(*, quick: bool) -> dict[str, Any]:
    """Both ways to read, by us and by hand, in turns."""
    count = 10_000 if quick else 244_000
    argv = [sys.executable, "-m", "bench.feed"]
    found: dict[str, Any] = {"changes": count}
    with served(count) as place:
        for way in WAYS:
            turns = []
            for _ in range(1 if quick else TURNS):
                pair = []
                for who in ("ours", "bare"):
                    child = [*argv, who, place["url"], way, str(count)]
                    done = subprocess.run(child, cwd=ROOT, stdout=subprocess.PIPE, check=True, timeout=300)
                    pair.append(json.loads(done.stdout))
                turns.append(pair)
            found[way] = {
                "ratio": median(ours["s"] / bare["s"] for ours, bare in turns),
                "cpu_ratio": median(ours["cpu_s"] / bare["cpu_s"] for ours, bare in turns),
                "per_s": median(count / ours["s"] for ours, _ in turns),
                "bare_per_s": median(count / bare["s"] for _, bare in turns),
                "cpu_us": median(ours["cpu_s"] / count * 1e6 for ours, _ in turns),
                "bare_cpu_us": median(bare["cpu_s"] / count * 1e6 for _, bare in turns),
            }
    return {**found, "line_bytes": place["line_bytes"]}


if __name__ == "__main__":
    part, *arguments = sys.argv[1:]
    if part == "serve":
        asyncio.run(serve(int(arguments[0])))
    else:
        url, way, count = arguments
        print(json.dumps(timed(part, url, way, int(count))))
