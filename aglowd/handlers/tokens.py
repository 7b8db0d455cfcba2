"""Make PiCaS tokens, attach their files, and archive them when their work is done."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from msgspec import Struct

from aglowd.effects.token_archive import ArchiveTokens, DeleteTokens
from aglowd.effects.tokens import AttachFiles, CreateTokens
from aglowd.errors import Permanent
from aglowd.grid.surl import parse_surl
from aglowd.grid.tokens import build_token, names_field
from aglowd.handlers.base import failure, once
from aglowd.handlers.missing import Missing, not_enough
from aglowd.model import Do, Done, Failed, Handler, Json, Outcome, Seen, StepView

MAX_TOKENS = 10_000
"""Of one step: as many as an SRM list has files at most. All of them are one effect, whose inputs the journal keeps."""


class CreateTokensStep(Handler):
    """One token for each group of input files: SURLs by subband (`SB000`), or result files in order (`AB000`).

    `group`: files a token; 0 = all in one. `missing`: what subbands may lack a file. `site`: where they are worked on, which tells their
    database. `keys` are set in each token beside what the GRID_LRT configuration says. `attach`: name → text of files that each gets with
    its own srm.txt as it is made; a step `attach` brings them later, which is too late for pilots that others start.
    Outputs: `tokens` (their ids), `srm` (id → text of its srm.txt).
    """

    kind = "create_tokens"

    class Params(Struct, frozen=True, forbid_unknown_fields=True):
        token_type: str
        config: dict[str, Json]
        surls: tuple[str, ...] = ()
        files: tuple[str, ...] = ()
        group: int = 1
        keys: dict[str, Json] = {}
        missing: Missing | None = None
        attach: dict[str, str] | None = None
        site: str = ""

    def react(self, step: StepView, params: Any, seen: Seen) -> Outcome:
        if bool(params.surls) == bool(params.files):
            return Failed("a token needs input: give either surls or files, and not an empty list", final=True)
        if lacking := not_enough(params.surls or params.files, params.missing):
            return Failed(f"no tokens are made: {lacking}", final=True)
        created = seen.result(CreateTokens)
        if created is None:
            failed = failure(seen)
            return failed if failed is not None else self._create(params)
        names, lists = [], {}
        for name, _, surls in self._groups(params):
            names.append(name)
            lists[name] = _list_of(surls)
        return Done({"token_type": params.token_type, "tokens": names, "count": len(names), "srm": lists})

    def _create(self, params: Any) -> Outcome:
        documents: dict[str, Json] = {}
        own: dict[str, dict[str, str]] = {}
        try:
            for name, keys, surls in self._groups(params):
                if name in documents:
                    return Failed(f"two groups of files would be the one token {name}", final=True)
                if len(documents) == MAX_TOKENS:
                    return Failed(f"these are more than {MAX_TOKENS} tokens: give a larger group", final=True)
                documents[name] = build_token(params.config, name, params.token_type, {**params.keys, **keys})
                if surls and params.attach is not None:
                    own[name] = {"srm.txt": _list_of(surls)}
        except (ValueError, Permanent) as error:
            return Failed(f"no token can be made of this: {error}", final=True)
        shared = params.attach or {}
        return Do.all(
            CreateTokens(token_type=params.token_type, tokens=documents, own=own, shared=shared, site=params.site)
        )

    def _groups(self, params: Any) -> Iterator[tuple[str, dict[str, Json], tuple[str, ...]]]:
        """(token id, its own keys, its SURLs), the same for the same parameters.

        A configuration that has the number of a token under the other name too gets it there: it names its results by it.
        """
        if params.surls:
            by_subband = sorted(params.surls, key=lambda surl: (parse_surl(surl).subband or 0, surl))
            for chunk in _chunks(by_subband, params.group):
                start = f"{parse_surl(chunk[0]).subband or 0:03d}"
                name = f"{params.token_type}:SB{start}"
                own = {"STARTSB": start, "RESULT_NAME": f"{parse_surl(chunk[0]).obsid}_SB{start}"}
                yield name, own | _also(params, "ABN", start), chunk
        else:
            prefix = f"{params.keys['OBSID']}_" if "OBSID" in params.keys else ""
            for number, chunk in enumerate(_chunks(sorted(params.files), params.group)):
                start = f"{number * max(params.group, 1):03d}"
                files = {"ABN": start, "INPUT_FILES": list(chunk), "RESULT_NAME": f"{prefix}AB{start}"}
                yield f"{params.token_type}:AB{start}", files | _also(params, "STARTSB", start), ()


def _also(params: Any, name: str, start: str) -> dict[str, Json]:
    return {name: start} if name not in params.keys and names_field(params.config, name) else {}


def _list_of(surls: tuple[str, ...]) -> str:
    """The text of a token's srm.txt."""
    return "".join(f"{surl}\n" for surl in surls)


def _chunks(items: list[str], size: int) -> Iterator[tuple[str, ...]]:
    size = size or len(items)
    for first in range(0, len(items), size):
        yield tuple(items[first : first + size])


class AttachFilesStep(Handler):
    """Attach each token's own srm.txt and the files that all share."""

    kind = "attach"

    class Params(Struct, frozen=True, forbid_unknown_fields=True):
        srm: dict[str, str]
        shared: dict[str, str] = {}
        site: str = ""

    def react(self, step: StepView, params: Any, seen: Seen) -> Outcome:
        own = {name: {"srm.txt": text} if text else {} for name, text in params.srm.items()}
        return once(seen, AttachFiles(own=own, shared=params.shared, site=params.site))


class ArchiveTokensStep(Handler):
    """Archive the tokens of these types, one tar.gz each, and delete exactly what was read back from there.

    `tokens`: of each type, which; without it, those that aglowd made.
    Outputs: `archives` (URLs), `left` (what was not removed of the types themselves, and why; it does no harm).
    """

    kind = "archive_tokens"

    class Params(Struct, frozen=True, forbid_unknown_fields=True):
        token_types: tuple[str, ...]
        directory: str
        tokens: tuple[tuple[str, ...], ...] = ()
        site: str = ""

        def __post_init__(self) -> None:
            if self.tokens and len(self.tokens) != len(self.token_types):
                raise ValueError(f"found {len(self.tokens)} lists of tokens; expected one for each of token_types")

    def react(self, step: StepView, params: Any, seen: Seen) -> Outcome:
        failed = failure(seen)
        if failed is not None:
            return failed
        archives = [seen.result(ArchiveTokens, number) for number in range(len(params.token_types))]
        if not params.token_types:
            return Done({"archives": [], "left": []})
        # An earlier attempt may have deleted some already: what is left goes into an archive of its own.
        again = f"-{step.attempt}" if step.attempt > 1 else ""
        if not seen.count(ArchiveTokens):
            return Do(
                tuple(
                    ArchiveTokens(
                        token_type=name,
                        url=f"{params.directory}/{name}.tokens{again}.tar.gz",
                        tokens=params.tokens[number] if params.tokens else (),
                        site=params.site,
                        ordinal=number,
                    )
                    for number, name in enumerate(params.token_types)
                )
            )
        if not seen.count(DeleteTokens):
            return Do(
                tuple(
                    DeleteTokens(
                        token_type=name,
                        revisions=archive["revisions"],
                        archive=archive["url"],
                        adler32=archive["adler32"],
                        site=params.site,
                        ordinal=number,
                    )
                    for number, (name, archive) in enumerate(zip(params.token_types, archives, strict=True))
                )
            )
        deleted = [seen.result(DeleteTokens, number) for number in range(len(archives))]
        left = [result["left"] for result in deleted if "left" in result]
        return Done({"archives": [archive["url"] for archive in archives], "left": left})
