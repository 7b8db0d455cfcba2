"""`python -m aglowd.sim`: run the simulated grid until SIGTERM; one JSON line says that it is ready, and where."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from pathlib import Path

import msgspec

from aglowd.sim.faults import CHAOS_DAYS, read_scripts
from aglowd.sim.grid import Settings, simulated_grid


def read_arguments(argv: list[str]) -> Settings:
    parser = argparse.ArgumentParser(prog="python -m aglowd.sim", description=__doc__)
    parser.add_argument("--dir", type=Path, required=True, help="where the world lives: bin, storage, ledger.jsonl")
    parser.add_argument("--srm-dir", type=Path, required=True, help="SRM lists (*.txt); their SURLs exist on tape")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--speed", type=float, default=1.0, help="world seconds per second")
    parser.add_argument("--origin", type=float, required=True, help="epoch at which world and real time agree")
    parser.add_argument("--slots", type=int, default=2000, help="how many jobs run at once")
    parser.add_argument("--failure-rate", type=float, default=1.0, help="factor on the odds of failures; 0 = none")
    parser.add_argument("--proxy-hours", type=float, default=168.0, help="world hours that the proxy lives")
    parser.add_argument("--pin-days", type=float, default=7.0, help="world days that a staged file stays on disk")
    parser.add_argument("--faults", type=Path, help="a JSON file with a list of fault scripts")
    parser.add_argument("--chaos", action="store_true", help="let chance strike too, by the seed")
    parser.add_argument(
        "--chaos-days", type=float, default=CHAOS_DAYS, help="world days after which it strikes no more"
    )
    given = parser.parse_args(argv)
    return Settings(
        directory=given.dir,
        srm_dir=given.srm_dir,
        seed=given.seed,
        speed=given.speed,
        origin=given.origin,
        slots=given.slots,
        failure_rate=given.failure_rate,
        proxy_hours=given.proxy_hours,
        pin_days=given.pin_days,
        faults=read_scripts(given.faults) if given.faults else (),
        chaos=given.chaos,
        chaos_days=given.chaos_days,
    )


async def run(settings: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with simulated_grid(settings) as ready:
        sys.stdout.write(msgspec.json.encode(ready).decode() + "\n")
        sys.stdout.flush()
        await stop.wait()


def main() -> None:
    asyncio.run(run(read_arguments(sys.argv[1:])))


if __name__ == "__main__":
    main()
