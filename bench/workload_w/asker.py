"""How the floor and the peers speak with the service; aglowd does it by its own steps of kind `http`."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp


async def until_done(session: aiohttp.ClientSession, url: str, field: str, step: int, poll_s: float) -> None:
    """Return when the service says that this wait is done."""
    while True:
        if (await _answer(session, "GET", f"{url}/wait/{field}/{step}"))["done"]:
            return
        await asyncio.sleep(poll_s)


async def act(session: aiohttp.ClientSession, url: str, field: str, step: int) -> int:
    """Do it, under a key that is the same whenever it is asked again; returns the number that it got."""
    answer = await _answer(session, "POST", f"{url}/act/{field}/{step}", {"Idempotency-Key": f"{field}/{step}"})
    return int(answer["number"])


async def was_done(session: aiohttp.ClientSession, url: str, field: str, step: int) -> bool:
    """Whether the service has done it already, for whoever crashed between asking and hearing."""
    return bool((await _answer(session, "GET", f"{url}/act/{field}/{step}"))["done"])


async def _answer(
    session: aiohttp.ClientSession, method: str, url: str, headers: dict[str, str] | None = None
) -> dict[str, Any]:
    async with session.request(method, url, headers=headers, raise_for_status=True) as reply:
        found: dict[str, Any] = await reply.json()
        return found
