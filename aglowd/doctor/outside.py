"""One harmless question to each outside system that is configured, all at once, and none waits for another.

What must stay true: every question is one that changes nothing there, such as the daemon itself asks; an answer that is
no, or none within the limit, is told with what to look at.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from statistics import median

import aiosmtplib

from aglowd.config import Config, NotifyConfig, read_secret, web_place
from aglowd.doctor.host import TOOLS, tools_of
from aglowd.doctor.model import FAIL, OK, WARN, Check
from aglowd.durations import duration_s, duration_text
from aglowd.effects.base import World, served
from aglowd.errors import OutsideError, Permanent, Temporary
from aglowd.grid.batch import Batch
from aglowd.grid.nobody import Nobody
from aglowd.grid.proxy import Proxy
from aglowd.grid.words import quoted
from aglowd.toml_file import ConfigError

ASK_REAL_S = 30.0
"""Real seconds that a question may take, waiting for its place included."""
SKEW_WARN_S, SKEW_FAIL_S = 30.0, 300.0
"""How far clocks may be apart: an answer says its second only, and takes a while; certificates and tokens bear minutes."""
NOBODYS = "srm://{}/L999999_SB000_aglowd_doctor.tar"
"""A file that is nobody's is asked for: that it is not there is an answer."""
PATHS: Mapping[str, str] = {
    "juelich": "lofar-srm.fz-juelich.de:8443/pnfs/fz-juelich.de/data/lofar/ops",
    "poznan": "lta-head.lofar.psnc.pl:8443/lofar/ops",
}
"""Site → where its files lie; others are asked as SARA is."""
SARA = "srm.grid.sara.nl:8443/pnfs/grid.sara.nl/data/lofar/ops"

Question = Callable[[], Awaitable[str]]
"""Asks, and says in a few words what the answer was."""


async def ask_all(config: Config, world: World, proxies: Mapping[str, Proxy], *, git: bool) -> list[Check]:
    """The answers, in the order of the questions."""
    questions = list_questions(config, world)
    told = [_answer(name, question) for name, question in questions.items()]
    tools = [_tool(world, name) for name in tools_of(config, git=git)]
    proxy = [_proxy(config, name, one) for name, one in proxies.items()]
    answers = await asyncio.gather(*told, *proxy, *tools)
    return [check for check in answers if check is not None] + check_clocks(world, is_real=config.clock.rate == 1.0)


def list_questions(config: Config, world: World) -> dict[str, Question]:
    """What is asked of whom. Systems that several sites share are asked once."""
    found: dict[str, Question] = {"catalogue": partial(_catalogue, world)}
    used = {site.staging for site in config.sites.values()}
    for sites in served(world.stagers):
        name = _called("stager", sites)
        # The legacy stager is there for everybody, and may be nobody's.
        if any(sites) or "legacy" in used:
            found[name] = partial(_stager, world, sites[-1])
    for sites in served(world.archives):
        found[_called("where files are", sites)] = partial(_archive, world, sites[-1])
    for sites in served(world.token_bases):
        found[_called("token database", sites)] = partial(_tokens, world, sites[0])
    for sites in served(world.batches):
        batch = world.batches[sites[0]]
        if not isinstance(batch, Nobody) and _is_used(config, sites):
            found[_called(f"jobs, {batch.system}", sites)] = partial(_jobs, batch)
    for name, site in sorted(config.sites.items()):
        for key, url in (("results", site.results), ("archive", site.archive)):
            if url:
                found[f"{key} of {name}"] = partial(_storage, world, url)
    if config.notify.mail_to:
        found["mail relay"] = partial(_relay, config.notify.smtp)
    if config.notify.webhook or config.notify.webhook_file:
        found["webhook"] = partial(_webhook, config.notify)
    return found


def _called(what: str, sites: Sequence[str]) -> str:
    named = [site for site in sites if site]
    return f"{what} ({', '.join(named)})" if named else what


def _is_used(config: Config, sites: Sequence[str]) -> bool:
    """Whether anything is processed there: the common batch system may be nobody's."""
    processing = {site.process or name for name, site in config.sites.items()}
    return bool(processing.intersection(sites))


async def _answer(name: str, question: Question) -> Check:
    try:
        async with asyncio.timeout(ASK_REAL_S):
            return Check("outside", name, OK, await question())
    except TimeoutError:
        return Check(
            "outside", name, FAIL, f"no answer within {ASK_REAL_S:g} s", "is it up, and can it be reached from here?"
        )
    except Permanent as error:
        step = "it answers and refuses: look at its address, and at what our credential may do"
        return Check("outside", name, FAIL, quoted(str(error), most=400), step)
    except OutsideError as error:
        return Check("outside", name, FAIL, quoted(str(error), most=400), _step(str(error)))
    except Exception as error:  # A defect of one question leaves the other answers as they are.
        what = quoted(f"{type(error).__name__}: {error}", most=400)
        return Check("outside", name, FAIL, what, "this is a defect of aglowd: aglowctl report")


def _step(said: str) -> str:
    if "frozen" in said or "HTTP 401" in said:
        return "put a good password or token where credentials, above, says that it was found"
    if "cannot be started" in said:
        return "install the tool, or name its directory in daemon.tool_path"
    return "is it up, and can it be reached from here?"


async def _catalogue(world: World) -> str:
    rows = await world.catalogue.rows()
    wrong = [row for row in rows if row.problem]
    return f"{len(rows)} fields" + (
        f"; {len(wrong)} cannot be used: {wrong[0].name}: {wrong[0].problem}" if wrong else ""
    )


async def _stager(world: World, site: str) -> str:
    return f"{len(await world.stager(site).progress())} requests of ours"


async def _archive(world: World, site: str) -> str:
    await world.archive(site).localities([NOBODYS.format(PATHS.get(site, SARA))])
    return "it answers"


async def _tokens(world: World, site: str) -> str:
    info = await world.token_base(site).info()
    return f"{world.token_base(site).database}: {info.doc_count} documents"


async def _jobs(batch: Batch) -> str:
    return f"{len(await batch.list_ours())} jobs of ours"


async def _storage(world: World, url: str) -> str:
    try:
        entry = await world.storage.stat(url)
    except Permanent as error:
        if not error.absent:
            raise
        entry = None
    return (
        f"{url} is there" if entry is not None else f"it answers; {url} is not there yet, and is made when it is needed"
    )


async def _relay(address: str) -> str:
    host, _, port = address.rpartition(":")
    relay = aiosmtplib.SMTP(hostname=host, port=int(port), timeout=ASK_REAL_S, validate_certs=False)
    try:
        await relay.connect()
        await relay.quit()
    except (aiosmtplib.SMTPException, OSError) as error:
        raise Permanent(f"the mail relay {address}: {error}") from error
    return f"{address} takes connections"


async def _webhook(notify: NotifyConfig) -> str:
    """Whether somebody is there. Nothing is sent: people would read it. But for its host the address is a secret."""
    try:
        text = await asyncio.to_thread(read_secret, notify.webhook_file) if notify.webhook_file else notify.webhook
    except ConfigError as error:
        raise Permanent(str(error)) from error
    place = web_place(text)
    if place is None:
        raise Permanent("the address of the webhook is no http:// or https:// URL")
    host, port = place
    try:
        _, writer = await asyncio.open_connection(host, port, ssl=text.startswith("https:"))
        writer.close()
    except OSError as error:
        raise Temporary(f"the webhook at {host}:{port}: {error}") from error
    return f"{host}:{port} takes connections; whether it takes messages is not tried"


# --- the proxies, the versions of the tools, the clock


async def _proxy(config: Config, name: str, proxy: Proxy) -> Check:
    called = name or "common"
    try:
        async with asyncio.timeout(ASK_REAL_S):
            info = await proxy.info()
    except TimeoutError:
        return Check(
            "proxy",
            called,
            FAIL,
            "it could not be looked at in time",
            f"look at it: voms-proxy-info -file {proxy.place}",
        )
    except OutsideError as error:
        return Check("proxy", called, FAIL, quoted(str(error), most=400), "")
    left = duration_text(info.left_s)
    ac = info.ac_seconds_left
    parts = "no VOMS attributes" if ac is None else f"its VOMS attributes for {duration_text(ac)}"
    what = f"{proxy.place} is good for {duration_text(info.seconds_left)}, {parts}; {info.subject}"
    if info.left_s < duration_s(config.proxy.minimum):
        return Check("proxy", called, FAIL, what, f"{left} are left, pilots need {config.proxy.minimum}: renew it")
    if info.left_s < duration_s(config.proxy.warn):
        return Check("proxy", called, WARN, what, f"{left} are left: renew it")
    if ac is None:
        return Check(
            "proxy",
            called,
            WARN,
            what,
            "storage and batch systems of a VO want its attributes: voms-proxy-init -voms lofar",
        )
    return Check("proxy", called, OK, what)


async def _tool(world: World, name: str) -> Check | None:
    """The version of the first tool of that kind, if it tells one."""
    try:
        async with asyncio.timeout(ASK_REAL_S):
            ended = await world.processes.run([TOOLS[name][0], "--version"], write=False, timeout_s=ASK_REAL_S)
    except (OSError, OutsideError):
        return None  # That it is missing is told elsewhere.
    said = quoted(ended.stdout, ended.stderr, most=100)
    return Check("versions", TOOLS[name][0], OK, said) if ended.rc == 0 and said else None


def check_clocks(world: World, *, is_real: bool) -> list[Check]:
    """Our clock beside those of the servers that answered: when most say that it is wrong, it is."""
    skews = world.http.skews
    if not is_real:
        return []
    if not skews:
        return [Check("clock", "skew", WARN, "no server told its time, so there is nothing to compare with")]
    ours = median(skews.values())
    worst = max(skews.values(), key=abs)
    state = FAIL if abs(ours) >= SKEW_FAIL_S else WARN if abs(ours) >= SKEW_WARN_S else OK
    how = f"{'behind' if ours > 0 else 'ahead of'} {len(skews)} servers by {duration_text(abs(ours))}"
    found = [
        Check(
            "clock",
            "skew",
            state,
            f"our clock is {how}",
            "" if state == OK else "look at chronyc tracking, or timedatectl",
        )
    ]
    if state == OK and abs(worst) >= SKEW_WARN_S:
        found += [
            Check(
                "clock",
                host,
                WARN,
                f"its clock is {duration_text(abs(skew))} {'ahead' if skew > 0 else 'behind'}",
                "tell its people",
            )
            for host, skew in sorted(skews.items())
            if abs(skew) >= SKEW_WARN_S
        ]
    return found
