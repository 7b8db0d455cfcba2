"""Fields that wait for tokens, pilots, results, and for the work of others."""

from __future__ import annotations

import os

from aglowd.effects.tokens import write_all
from aglowd.grid.picas_views import token_design_doc
from aglowd.sim.faults import Script as Fault
from tests.stuck.place import FIELD, GRIDJOB, LIST, OTHER, RESULTS, Lines, Place, place, situation
from tests.virtual.script import HOUR_S

COLLECT = """
[steps.check]
kind = "collect"
token_type = "done"
"""
GRIDJOB_ON_FILES = f"""
[steps.target]
use = "gridjob"
site = "sara"
token_type = "{{{{ run.id }}}}_again"
token_config = {{ file = "tokens/target2.json" }}
files = {[f"{RESULTS}/in/{number}.tar" for number in range(4)]}
attach = {{ "Pre-Facet-Target-2.parset" = "! parset" }}
results = "{RESULTS}/out"
"""
CALIBRATED = """
[steps.calibrator]
kind = "run"
pipeline = "cal"
share = "cal/{{ field.calibrator.obsid }}"
"""
ASK = """
[steps.ask]
kind = "await_approval"
"""


# --- shared work


@situation("Its calibrator is being processed")
async def calibrator() -> Lines:
    async with place(CALIBRATED, others={"cal": ASK}) as here:
        return await here.until("waiting for the run", "an operator is asked")


@situation("Its calibrator failed")
async def calibrator_failed() -> Lines:
    broken = f'[steps.look]\nkind = "check_files"\ndirectory = "{RESULTS}/cal"'
    async with place(CALIBRATED, others={"cal": broken}) as here:
        return await here.until("failed")


@situation("The calibrator's solutions are gone")
async def no_solutions() -> Lines:
    look = f'[steps.solutions]\nkind = "check_files"\nfiles = ["{RESULTS}/cal/solutions.tar"]'
    async with place(look) as here:
        here.storage.write(f"{RESULTS}/cal/other.tar", b"other")
        return await here.until("failed")


# --- pilots


@situation("The grid proxy runs out")
async def proxy() -> Lines:
    async with place(LIST, GRIDJOB) as here:
        life_s = 2997 * HOUR_S / here.simulation.script.rate
        written = here.simulation.host.true() - life_s
        os.utime(here.simulation.ready["proxy"], (written, written))
        return await here.until("the proxy")


@situation("As many pilots run as may be")
async def pilots_at_once() -> Lines:
    async with place(LIST, GRIDJOB, fields=(FIELD, OTHER), slots=0, sites_sara={"pilots_at_once": 1}) as here:
        await here.until("1 pilots alive", name=OTHER)
        return await here.until("no pilot may be started now")


@situation("Its pilots are queued")
async def queued() -> Lines:
    async with place(LIST, GRIDJOB, slots=0) as here:
        return await here.until("4 to do, 4 pilots alive", "words")


@situation("Its pilots end at once")
async def breaker() -> Lines:
    broken = {"arguments": ["run.sh", "--url", "http://127.0.0.1:9", "--database", "x"]}
    async with place(LIST, GRIDJOB, jobs=broken) as here:
        return await here.until("one more pilot is tried")


@situation("Its tokens are held by pilots that have ended")
async def orphans() -> Lines:
    async with place(GRIDJOB_ON_FILES) as here:
        for number in range(4):
            here.storage.write(f"{RESULTS}/in/{number}.tar", b"an input")
        await here.until("4 in work")
        (job,) = (await here.ask("GET", "jobs"))["jobs"]
        processes = here.simulation.daemon._world.processes
        await processes.run(("glite-wms-job-cancel", "--noint", job["job"]), write=True)
        return await here.until("held by pilots")


@situation("Its tokens have failed too often")
async def failed_tokens() -> Lines:
    # Nobody has staged the files, so each pilot fails at them.
    async with place(LIST, GRIDJOB) as here:
        return await here.until("is failed", most_s=200 * HOUR_S)


@situation("Nobody starts pilots at its site")
async def nobody() -> Lines:
    async with place(LIST, GRIDJOB, sites_sara_jobs={"system": "none"}) as here:
        return await here.until("somebody else starts the pilots")


@situation("The token database tells nothing")
async def no_tokens() -> Lines:
    async with place(LIST, GRIDJOB, slots=0, picas={"poll": "10m"}) as here:
        await here.until("4 pilots alive")
        here.strike(system="couchdb", fault="refuse", value=HOUR_S / 3, count=1)
        lines = await here.until("no answer", "tokens:")
        await here.sleep(HOUR_S)  # What is told to be typed can be tried again.
        return lines


@situation("The token database takes no tokens")
async def tokens_not_made() -> Lines:
    refuses = Fault(system="couchdb", fault="error_before", op="bulk_docs", count=10_000, value=503)
    async with place(LIST, GRIDJOB, faults=(refuses,)) as here:
        return await here.until("outcome unknown", "create_tokens")


@situation("The batch system takes no jobs")
async def no_batch() -> Lines:
    broken = Fault(system="glite", fault="kill_before", count=10_000)
    async with place(LIST, GRIDJOB, faults=(broken,)) as here:
        return await here.until("submit_jobs")


# --- results


async def with_results(here: Place, **token: object) -> None:
    """Two tokens that are done, and say where their results are."""
    base = here.simulation.daemon._world.token_base("")
    documents = []
    for number in range(2):
        url = f"{RESULTS}/{number}.tar"
        done = {"status": "done", "lock": 1, "done": 1, "Results_location": url}
        documents.append({"_id": f"done_{number}", "type": "done", **done, **token})
    here.storage.write(f"{RESULTS}/0.tar", b"a result")
    await base.ensure_design("done", token_design_doc("done"))
    await write_all(base, documents, "were refused")


@situation("A result is missing")
async def no_result() -> Lines:
    async with place(ASK, COLLECT, 'needs = ["ask"]') as here:
        await with_results(here)
        await here.until("an operator is asked")
        await here.order(f"fields/{FIELD}/verdict", approved=True, verdict="good", reason="-")
        return await here.until("is failed")


@situation("A result is too short")
async def short_result() -> Lines:
    async with place(ASK, COLLECT, 'needs = ["ask"]') as here:
        await with_results(here, aglowd={"result": {"size_bytes": 1000}})
        here.storage.write(f"{RESULTS}/1.tar", b"another result")
        await here.until("an operator is asked")
        await here.order(f"fields/{FIELD}/verdict", approved=True, verdict="good", reason="-")
        return await here.until("is failed")
