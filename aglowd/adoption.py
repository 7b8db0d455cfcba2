"""`aglowctl adopt`: take fields over that another program, AGLOW or an aglowd that is gone for good, has begun.

How far that program has come is what the catalogue says; what of the pipeline is done by then, the pipeline's own [adopt]
tables say. What must stay true: each field is taken over whole or not at all, and one that cannot be does not stop the
others; what is shown before is what is then done; files that must exist are seen to do so; nothing that the other program
left is removed or written over.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import structlog
from msgspec import Meta, Struct

from aglowd import templates
from aglowd.choice import MAX_TOLD, Choice, is_pattern
from aglowd.effects.tokens import is_ours
from aglowd.errors import AglowError, OutsideError
from aglowd.grid.catalogue import Catalogue
from aglowd.grid.picas import Picas, check_token_type
from aglowd.grid.storage import Storage
from aglowd.handlers.files import urls_in
from aglowd.handlers.tokens import MAX_TOKENS
from aglowd.model import Json
from aglowd.pipeline import Pipeline
from aglowd.selection import Limits, why_full
from aglowd.steering import Name, Names, Reason
from aglowd.store.doubts import Word
from aglowd.store.lineage import TAKEN_FROM
from aglowd.store.manual import Left
from aglowd.store.plans import Changed
from aglowd.store.rows import dumps
from aglowd.store.store import Store

ASK_REAL_S = 60.0
"""Real seconds in which a token database, or the catalogue, answers."""
TOKENS_OF = "tokens_of"
"""In an [adopt] table, instead of a step's outputs: the type of the tokens that it would have made."""
Text = Annotated[str, Meta(min_length=1, max_length=10_000)]


class AdoptOrder(Struct, frozen=True, forbid_unknown_fields=True):
    """Which fields, by names, patterns or a status: of these, or of all, only those in that status, "" = in any.

    `given`: name → what the pipeline's [adopt] tables cannot know. `tokens`: step → the type of the tokens that the other
    program has made for it. Both may be templates, which see `field`. `site`: where these tokens are worked on, "" = as the
    catalogue says. `of`: the name of the aglowd that is gone for good and holds them; without it none is taken that one holds.
    """

    targets: Names = ()
    status: Annotated[str, Meta(max_length=64)] = ""
    given: Annotated[dict[Name, Text], Meta(max_length=100)] = {}
    tokens: Annotated[dict[Name, Text], Meta(max_length=100)] = {}
    site: Annotated[str, Meta(max_length=64)] = ""
    of: Annotated[str, Meta(max_length=300)] = ""
    reason: Reason = ""
    dry_run: bool = False
    version: Annotated[str, Meta(max_length=64)] = ""
    """What a dry run showed, "" = as it is now."""


class Adoption:
    """Carries it out. `words`: what pipelines say of a field → the catalogue's word for it; `shown`: as templates see it."""

    def __init__(
        self,
        store: Store,
        pipeline: Pipeline,
        words: Mapping[str, str],
        shown: Mapping[str, Json],
        token_base: Callable[[str], Picas],
        catalogue: Catalogue,
        storage: Storage,
        limits: Limits,
        lock: asyncio.Lock | None = None,
    ) -> None:
        self._store = store
        self._pipeline = pipeline
        self._shown = shown
        self._token_base = token_base
        self._catalogue = catalogue
        self._storage = storage
        self._lock = lock or asyncio.Lock()
        """One order at a time: each knows what the others have taken."""
        self._limits = limits
        self._tables = {words[word]: steps for word, steps in self._pipeline.adopt.items()}
        """The catalogue's word → what is done by then."""
        self._log = structlog.get_logger("adoption")

    async def adopt(self, order: AdoptOrder, uid: int) -> dict[str, Json]:
        """What was taken over, or with `dry_run` would be, and why each other field was left; AglowError if none was."""
        async with self._lock:
            return await self._adopt(order, uid)

    async def _adopt(self, order: AdoptOrder, uid: int) -> dict[str, Json]:
        if not self._tables:
            raise AglowError(
                f"the pipeline {self._pipeline.name} has no [adopt] tables, which say what is done of a field"
            )
        if order.of and not self._is_taken_from:
            raise AglowError(
                f"no step of {self._pipeline.name} takes a field from another aglowd; the one that claims it needs "
                "of = \"{{ field.taken_from if field.taken_from is defined else '' }}\""
            )
        unknown = sorted(order.tokens.keys() - self._pipeline.aliases.keys())
        if unknown:
            known = ", ".join(sorted(self._pipeline.aliases)) or "none"
            raise AglowError(
                f"no step {unknown[0]!r} of {self._pipeline.name} makes tokens by a fragment; known: {known}"
            )
        wanted = {used[1] for used in templates.names(self._pipeline.adopt) if used[0] == "given" and len(used) > 1}
        if unused := sorted(order.given.keys() - wanted):
            known = ", ".join(sorted(wanted)) or "none"
            raise AglowError(f"no [adopt] table of {self._pipeline.name} uses given.{unused[0]}; known: {known}")
        if order.site and order.site not in self._routes:
            raise AglowError(f"there is no site {order.site!r}; known: {', '.join(sorted(self._routes)) or 'none'}")
        left: dict[str, str] = {}
        plan = await self._plan(order, left)
        version = hashlib.blake2b(dumps(plan).encode(), digest_size=8).hexdigest()
        if order.version and order.version != version:
            would = ", ".join(f"{told['field']} ({told['status']})" for told in plan) or "nothing"
            raise Changed(f"it has changed since you looked: {would} would be taken over now; look again, then decide")
        taken = plan if order.dry_run else await self._take(plan, order, uid, left)
        if not taken:
            field, why = next(iter(left.items()))
            more = f" (and {len(left) - 1} more)" if len(left) > 1 else ""
            raise AglowError(f"nothing is taken over: {field}: {why.removeprefix(f'{field}: ')}{more}")
        return {"done": not order.dry_run, "version": version, "fields": taken, "left": left}

    async def _plan(self, order: AdoptOrder, left: dict[str, str]) -> list[dict[str, Json]]:
        """What is to be taken over; why each other field cannot be is put into `left`."""
        plan: list[dict[str, Json]] = []
        token_types: set[str] = set()
        at_work = await self._store.at_work()
        used = Counter(await self._store.sites_running())
        for field in await self._meant(order):
            try:
                if field in at_work:
                    raise AglowError(f"a run is at work on it: aglowctl explain {field}")
                run, context = await self._store.about_take_over(self._pipeline, field, order.site)
                site = order.site or context["site"]
                if why := why_full(site, used, self._limits):
                    raise AglowError(why)
                plan.append({"field": field, "run": run, **await self._look(field, context, order, token_types)})
                used[site] += 1
            except (AglowError, OutsideError) as error:
                left[field] = str(error)
        return plan

    async def _take(
        self, plan: Sequence[dict[str, Json]], order: AdoptOrder, uid: int, left: dict[str, str]
    ) -> list[dict[str, Json]]:
        """What has been taken over of that; why the rest has not is put into `left`."""
        taken = []
        word = Word(uid, order.reason)
        for told in plan:
            field, status = told["field"], told["status"]
            begun = Left(field, status, told["steps"], order.site, order.of)
            try:
                run = await self._store.take_over(self._pipeline, begun, self._limits, word)
            except AglowError as error:
                left[field] = str(error)
                continue
            self._log.info("adopted", uid=word.uid, field=field, run=run, status=status, reason=word.reason)
            taken.append({**told, "run": run})
        return taken

    async def _meant(self, order: AdoptOrder) -> list[str]:
        """The names of the fields; what a pattern means besides those that can be taken over is nobody's business."""
        status = {one["field"]: one["catalogue_status"] for one in await self._store.fields()}
        if order.status and order.status not in self._tables:
            raise AglowError(f"nothing is taken over from status {order.status!r}; expected one of {self._expected()}")
        wanted = {order.status} if order.status else self._tables.keys()

        def unknown(name: str) -> str:
            if is_pattern(name):
                return f"no field {name[:MAX_TOLD]!r} is in a status of {', '.join(sorted(wanted))}"
            return f"the field {name[:MAX_TOLD]!r} is not in the catalogue; see aglowctl fields"

        return list(
            Choice(order.targets or (("*",) if order.status else ())).of(
                status,
                lambda name: name if status[name] in wanted else None,
                lambda name: status[name],
                unknown,
                lambda name: name if name in status else None,
            )
        )

    async def _look(
        self, field: str, context: dict[str, Json], order: AdoptOrder, token_types: set[str]
    ) -> dict[str, Json]:
        """The status in which it is taken over, and what is done by then; AglowError if it cannot be."""
        status = context["status"]
        if order.status and status != order.status:
            raise AglowError(f"it is in status {status!r}, not {order.status!r}")
        if status not in self._tables:
            raise AglowError(f"it is in status {status!r}; expected one of {self._expected()}")
        await self._check_row(field, status, order.of)
        done, tokens = await self._done(status, context, order, token_types)
        await self._check_files(done)
        return {"status": status, "steps": done, "tokens": tokens}

    async def _check_row(self, field: str, status: str, of: str) -> None:
        """AglowError unless the row says now what we know, and no other aglowd has put its key to it, or just the one that is named."""
        try:
            async with asyncio.timeout(ASK_REAL_S):
                shown, key = await self._catalogue.read_status(field)
                holder = await self._catalogue.holder(field)
        except TimeoutError as error:
            raise AglowError(f"{self._catalogue.where} does not answer within {ASK_REAL_S:g} s") from error
        if shown != status:
            raise AglowError(f"its row says {shown!r} by now; known was {status!r}")
        if of and holder.partition(" by ")[0] != of:
            raise AglowError(
                f"{status!r} is {f'the word of {holder}' if holder else 'no word of an aglowd'}; expected one of {of}"
            )
        if holder and not of:
            raise AglowError(
                f"{status!r} is the word of another aglowd, {holder}; if that one is gone for good: --of {holder.partition(' by ')[0]}"
            )
        if key is not None and not await self._store.has_run(key.partition("/")[0]):
            raise AglowError(f"{status!r} is the word of a run that is not known here any more, by {key}")

    async def _done(
        self, status: str, context: dict[str, Json], order: AdoptOrder, token_types: set[str]
    ) -> tuple[dict[str, dict[str, Json]], dict[str, Json]]:
        """Step → outputs of all that is done; and step → type and number of the other program's tokens."""
        seen = {**self._shown, "field": context}
        given = _texts("--given", order.given, seen)
        try:
            done = templates.render(self._tables[status], {**seen, "given": given})
        except templates.TemplateProblem as error:
            raise AglowError(f"at {status} it takes more than is given (--given NAME=VALUE): {error}") from error
        given_tokens = _texts("--tokens", order.tokens, seen)
        of = {f"{step}_tokens": token_type for step, token_type in given_tokens.items()}
        of |= {step: outputs[TOKENS_OF] for step, outputs in done.items() if TOKENS_OF in outputs and step not in of}
        tokens: dict[str, Json] = {}
        at = order.site or context["site"]
        site = self._routes[at]["name"] if at in self._routes else ""
        for step, token_type in of.items():
            if token_type in token_types:
                raise AglowError(
                    f"tokens of type {token_type!r} are another field's of this order; name {{{{ field.name }}}} in it"
                )
            ids = await self._ids(token_type, site, context)
            token_types.add(token_type)
            tokens[step.removesuffix("_tokens")] = {"token_type": token_type, "count": len(ids)}
            done[step] = {"token_type": token_type, "tokens": list(ids), "count": len(ids), "srm": {}}
        return done | {f"{step}_attach": {} for step in given_tokens}, tokens

    async def _check_files(self, done: Mapping[str, Mapping[str, Json]]) -> None:
        """AglowError unless the files that must exist of what is done do so now (`must_exist` of the steps that run others)."""
        for name, outputs in done.items():
            step = self._pipeline.steps.get(name)
            names = step.params.get("must_exist") if step is not None else None
            if not isinstance(names, list | tuple):
                continue
            for url in urls_in(outputs, names):
                said = f"the {', '.join(names)} of {name} are said to be at {url}"
                try:
                    async with asyncio.timeout(ASK_REAL_S):
                        found = await self._storage.stat(url)
                except TimeoutError as error:
                    raise AglowError(f"{said}, which does not answer within {ASK_REAL_S:g} s") from error
                if found is None or found.is_dir:
                    raise AglowError(f"{said}, where no file is")
                if not found.size_bytes:
                    raise AglowError(f"{said}, where the file is empty")

    @property
    def _is_taken_from(self) -> bool:
        """Whether a step of the pipeline says from which daemon the field is taken."""
        used = (name[:2] for step in self._pipeline.steps.values() for name in templates.names(step.params))
        return ("field", TAKEN_FROM) in used

    @property
    def _routes(self) -> dict[str, Any]:
        return dict(self._shown.get("route") or {})

    async def _ids(self, token_type: str, site: str, context: dict[str, Json]) -> tuple[str, ...]:
        """The tokens of that type; AglowError if there are none, too many, some of another observation, or of aglowd's own."""
        check_token_type(token_type)
        base = self._token_base(site)
        try:
            async with asyncio.timeout(ASK_REAL_S):
                ids = await base.list_ids(token_type)
                documents = await base.get_docs(ids[: MAX_TOKENS + 1])
        except TimeoutError as error:
            raise AglowError(f"the token database does not answer within {ASK_REAL_S:g} s") from error
        if not ids:
            raise AglowError(f"there is no token of type {token_type!r}")
        if len(ids) > MAX_TOKENS:
            raise AglowError(f"there are {len(ids)} tokens of type {token_type!r}; expected at most {MAX_TOKENS}")
        target = str(context.get("target", {}).get("obsid", "")).removeprefix("L")
        for name, document in documents.items():
            if document is None:
                continue
            if is_ours(document):
                raise AglowError(f"the token {name} is aglowd's own, of a run that it knows")
            obsid = str(document.get("OBSID") or "").removeprefix("L")
            if obsid and target and obsid != target:
                raise AglowError(f"the token {name} is of the observation L{obsid}; expected L{target}")
        return ids

    def _expected(self) -> str:
        return ", ".join(sorted(self._tables))


def _texts(option: str, values: Mapping[str, str], seen: Mapping[str, Any]) -> dict[str, str]:
    """The values with their templates filled in; AglowError for one that gives no text."""
    found = templates.render(dict(values), seen)
    for name, value in found.items():
        if not isinstance(value, str) or not value.strip():
            raise AglowError(f"{option} {name}={values[name]} gives {str(value)[:100]!r}; expected a text")
    return dict(found)
