"""A daemon that fails a field, is killed, and tells of it all the same: once, by each way that is configured."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from aglowd.cli.demo import Demo
from tests.grid.test_channels import Box, mail_server
from tests.world.small import FIELD, LIMIT_S, until, write_world

pytestmark = [pytest.mark.world, pytest.mark.timeout(240)]

FAILS = '[steps.fail]\nkind = "command"\nargv = ["false"]\nrepeatable = true\n'
HOOK = "/services/T0/B0/s3cretXs3cret"


@asynccontextmanager
async def webhook(texts: list[str], statuses: list[int]) -> AsyncIterator[str]:
    """A server that answers with these statuses, one each, and then takes everything."""

    async def take(request: web.Request) -> web.Response:
        status = statuses.pop(0) if statuses else 200
        if status == 200:
            texts.append((await request.json())["text"])
        return web.Response(status=status, text=f"{request.path} says {status}")

    app = web.Application()
    app.router.add_post(HOOK, take)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}{HOOK}"
    finally:
        await runner.cleanup()


async def test_a_field_that_failed_is_told_of_by_every_way_and_after_a_kill(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    directory = tmp_path_factory.mktemp("w")
    pipelines = directory / "pipelines"
    pipelines.mkdir()
    (pipelines / "fails.toml").write_text(FAILS, encoding="utf-8")
    told, texts, statuses, box = directory / "told", list[str](), [500, 404], Box()
    teller = directory / "tell"
    teller.write_text(f"#!/bin/sh\ncat >> {told}; echo >> {told}\n", encoding="utf-8")
    teller.chmod(0o755)
    address = directory / "webhook"
    address.touch(mode=0o600)
    async with webhook(texts, statuses) as url, mail_server(box) as relay:
        address.write_text(f"{url}\n", encoding="utf-8")
        notify: dict[str, Any] = {
            "command": [str(teller)],
            "webhook_file": str(address),
            "mail_to": ["lofar@example.org"],
            "mail_from": "aglowd@example.org",
            "smtp": relay,
            "gather": "1h",
            "apart": "1h",
        }
        options = msgspec.structs.replace(
            write_world(directory / "in"), pipeline=pipelines / "fails.toml", config={"notify": notify}
        )
        demo = Demo(options, directory / "state")
        async with demo.world():
            try:
                await demo.start()
                await asyncio.wait_for(demo.until_done(), LIMIT_S)
                await demo.kill()
                await demo.start()

                async def all_told() -> Any:
                    status = await demo.ask("/v1/status")
                    well = "defect" not in status["health"]["loops"]["teller"]
                    return status if told.exists() and texts and box.mails and well else None

                status = await until(all_told)
            finally:
                await demo.stop()
    line = f"{FIELD}: run {FIELD}-1 failed: fail: run command: false ended with 1, expected [0]:"
    messages = [json.loads(text) for text in told.read_text(encoding="utf-8").split("\n") if text]
    # The kill may have come between a message and its being remembered: then it comes twice, under one id.
    for found in ([one["text"] for one in messages], texts, [mail.get_content() for _, _, mail in box.mails]):
        assert len(found) in (1, 2)
        assert all(line in text for text in found)
    assert len({one["id"] for one in messages}) == 1
    assert messages[0]["notices"][0]["run"] == f"{FIELD}-1"
    assert statuses == []
    log = (demo.state / "aglowd.log").read_text(encoding="utf-8")
    assert '"cannot_tell"' in log
    assert "s3cretXs3cret" not in log + json.dumps(status)
    assert not any("s3cretXs3cret" in path.read_bytes().decode("latin1") for path in _written(demo.state))


def _written(state: Path) -> list[Path]:
    """What the daemon keeps."""
    return [path for path in state.glob("aglowd.db*") if path.is_file()]
