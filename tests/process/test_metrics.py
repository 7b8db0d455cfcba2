"""A real daemon under Prometheus' eyes: on TCP, from a log file of its own, and when the address cannot be had."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from .child import Home, running, start


def home_with(tmp_path: Path, **keys: str) -> Home:
    """A daemon with these keys below [daemon]."""
    home = Home(tmp_path)
    home.steps(work='kind = "command"\nargv = ["true"]')
    more = "".join(f'{key} = "{value}"\n' for key, value in keys.items())
    lines = home.config.read_text().replace("[daemon]\n", f"[daemon]\n{more}")
    home.config.write_text(lines)
    return home


async def test_it_is_scraped_and_its_log_is_a_file(tmp_path: Path) -> None:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{one.getsockname()[1]}"
    log = tmp_path / "aglowd.log"
    home = home_with(tmp_path, metrics=address, log_file=str(log))
    async with running(home) as child:
        await child.event("RunEnded")
        async with aiohttp.ClientSession() as client, client.get(f"http://{address}/metrics") as response:
            families = {family.name: family for family in text_string_to_metric_families(await response.text())}
        assert (await child.ask("/v1/log"))[1]["log"] == {"to": "file", "path": str(log)}
        assert await child.stop() == 0
    loops = {sample.labels["loop"] for sample in families["aglowd_loop_grace_seconds"].samples}
    assert {"reactor", "effects", "audit", "watcher job"} <= loops
    (ended,) = (sample for sample in families["aglowd_effects"].samples if sample.labels["kind"] == "run_command")
    assert (ended.labels["outcome"], ended.value) == ("done", 1)
    (lag,) = families["aglowd_watcher_lag_seconds"].samples
    assert lag.labels == {"watcher": "field"}
    events = [json.loads(line)["event"] for line in log.read_text().splitlines()]
    assert events[-1] == "stopped"
    assert {"ready", "metrics_served", "step_done"} <= set(events)
    assert child.log == [], "nothing is written twice"


async def test_an_address_that_is_taken_is_no_silence(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        child = await start(home_with(tmp_path, metrics=f"127.0.0.1:{taken.getsockname()[1]}"))
        said, _ = await child.communicate()
    assert child.returncode == 75
    assert "daemon.metrics: 127.0.0.1:" in said.decode()
