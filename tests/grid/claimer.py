"""Another daemon's claims, in a process of its own: `python -m tests.grid.claimer SPEC NAME TASKS WORDS NAMES`.

It says when it is ready, waits for a line, and tells what it won, and as whom. All use the same keys: the first run of a field has
one name with every daemon. With TASKS 0 it tells each field before it claims it, until somebody kills it.
"""

from __future__ import annotations

import asyncio
import json
import sys

from aglowd.errors import Permanent, Temporary

from .catalogues import build


async def main(spec: str, daemon: str, tasks: str, words: str, names: str) -> None:
    offered, claimed = json.loads(words)
    fields = json.loads(names)
    if not int(tasks):
        catalogue = build(json.loads(spec), daemon)
        for name in fields:
            print(name, flush=True)
            await catalogue.write_status(name, offered, claimed, f"run/{name}")
        print("all", flush=True)
        await asyncio.sleep(60)
    catalogues = [build(json.loads(spec), f"{daemon}.{number}") for number in range(int(tasks))]
    for catalogue in catalogues:
        await catalogue.rows()
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)

    async def claim(number: int) -> list[tuple[str, str]]:
        won = []
        for name in fields:
            key = f"{name}-1/claim/1/write_status/0"
            while True:
                try:
                    await catalogues[number].write_status(name, offered, claimed, key)
                    won.append((name, f"{daemon}.{number}"))
                except Temporary:
                    continue
                except Permanent:
                    pass
                break
        return won

    found = await asyncio.gather(*map(claim, range(int(tasks))))
    for catalogue in catalogues:
        await catalogue.close()
    print(json.dumps([claim for one in found for claim in one]), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
