"""Fields whose results do not get where they belong, and what can befall any step."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aglowd.model import FieldView
from aglowd.sim.faults import Script as Fault
from tests.stuck.place import (
    FIELD,
    KEPT,
    LIST,
    OTHER,
    RESULTS,
    STAGE,
    Lines,
    Place,
    place,
    situation,
)
from tests.virtual.script import HOUR_S

ASK = """
[steps.ask]
kind = "await_approval"
show = ["https://plots.example.org/{{ field.name }}.png"]
"""
COPY = f"""
[steps.copy]
kind = "copy_files"
needs = ["ask"]
files = ["{RESULTS}/result.tar"]
directory = "{KEPT}/{{{{ run.id }}}}"
"""
CLAIM = """
[steps.claim]
kind = "set_status"
expect = "{{ field.status }}"
status = "AAA"
"""


async def said_yes(here: Place) -> None:
    await here.until("an operator is asked")
    await here.order(f"fields/{FIELD}/verdict", approved=True, verdict="good", reason="-")


@situation("The archive's disk is full")
async def no_space() -> Lines:
    async with place(ASK, COPY) as here:
        here.storage.write(f"{RESULTS}/result.tar", b"a result")
        here.strike(system="storage", op="copy", fault="disk_full", value=1000 * HOUR_S)
        await said_yes(here)
        return await here.until("1/copy_file/0", "tries")


@situation("A copy breaks off")
async def broken_copy() -> Lines:
    async with place(ASK, COPY) as here:
        here.storage.write(f"{RESULTS}/result.tar", b"a result")
        here.strike(system="storage", op="copy", fault="half_file")
        await said_yes(here)
        return await here.until("1/copy_file/0", "tries")


@situation("Something else stands where a file belongs")
async def other_file() -> Lines:
    async with place(ASK, COPY) as here:
        here.storage.write(f"{RESULTS}/result.tar", b"a result")
        here.storage.write(f"{KEPT}/{FIELD}-1/result.tar", b"another")
        await said_yes(here)
        return await here.until("failed")


@situation("Somebody else has set its status")
async def status_of_others() -> Lines:
    async with place(ASK, CLAIM, 'needs = ["ask"]') as here:
        await here.until("an operator is asked")
        here.catalogue.write_text(here.catalogue.read_text().replace("SND", "QQQ"))
        await said_yes(here)
        return await here.until("failed")


@situation("The catalogue is away")
async def no_catalogue() -> Lines:
    async with place(ASK, CLAIM, 'needs = ["ask"]') as here:
        await here.until("an operator is asked")
        here.catalogue.rename(here.directory / "away")
        await said_yes(here)
        return await here.until("write_status")


@situation("Nobody knows yet whether it was done")
async def unknown() -> Lines:
    lost = Fault(system="lta", op="add_getid", fault="reset_after", count=1)
    async with place(LIST, STAGE, faults=(lost,)) as here:
        return await here.until("unknown")


@situation("Nobody can tell whether it was done")
async def doubt() -> Lines:
    # A command that does not say what it creates, and is killed: nobody can see whether it did.
    notify = f'[steps.notify]\nkind = "command"\nargv = ["gfal-ls", "{RESULTS}"]'
    killed = Fault(system="storage", fault="kill_before", count=1)
    async with place(notify, faults=(killed,)) as here:
        return await here.until("in doubt")


@situation("A person is asked")
async def approval() -> Lines:
    async with place(ASK) as here:
        return await here.until("an operator is asked")


@situation("A person said no")
async def rejected() -> Lines:
    async with place(ASK) as here:
        await here.until("an operator is asked")
        await here.order(f"fields/{FIELD}/verdict", approved=False, verdict="poor", reason="ionosphere")
        return await here.until("failed")


@situation("Its pool is full")
async def pool() -> Lines:
    async with place(ASK, 'pool = "eyes"', fields=(FIELD, OTHER), pools={"eyes": 1}) as here:
        await here.until("an operator is asked", name=OTHER)
        return await here.until("is full")


@situation("A step is tried again later")
async def retry() -> Lines:
    look = f'[steps.look]\nkind = "check_files"\ndirectory = "{RESULTS}/none"\nretries = 2\nretry_delay = "6h"'
    async with place(look) as here:
        return await here.until("attempt 1 of 3 failed")


@situation("It was not done in time")
async def too_late() -> Lines:
    async with place(ASK, 'timeout = "2h"') as here:
        return await here.until("failed")


@situation("It was cancelled")
async def cancelled() -> Lines:
    async with place(ASK) as here:
        await here.until("an operator is asked")
        await here.order("cancel", targets=[FIELD], reason="the wrong parset")
        return await here.until("cancelled")


@asynccontextmanager
async def full_disk_of(here: Place) -> AsyncIterator[Lines]:
    """The database gets no room any more while a field waits; what is said of it then."""
    await here.until("an operator is asked")
    store = here.simulation.daemon._store
    pages = await store.db.read(lambda db: db.execute("PRAGMA page_count").fetchone()[0])
    await store.db.write(lambda db: db.execute(f"PRAGMA max_page_count = {pages}").fetchone())
    large = FieldView("large", "ZZZ", {"text": "x" * 1_000_000})
    writing = asyncio.create_task(store.put_fields([(large, "")]))
    yield await here.until("DATABASE")
    writing.cancel()


@situation("The database cannot be written")
async def full_disk() -> Lines:
    async with place(ASK) as here, full_disk_of(here) as lines:
        return lines


@situation("A scheduled run is not over")
async def scheduled() -> Lines:
    nightly = f'[schedule]\nevery = "6h"\n{ASK.replace("{{ field.name }}", "nightly")}'
    async with place(LIST, others={"nightly": nightly}) as here:
        await here.sleep(7 * HOUR_S)
        return await here.until("an operator is asked", name="schedule/nightly")
