"""Make PiCaS tokens, attach their files, and archive them when their work is done."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from msgspec import Struct

from aglowd.effects.tokens import ArchiveTokens, AttachFiles, CreateTokens, DeleteTokens
from aglowd.errors import Permanent
from aglowd.grid.surl import parse_surl
from aglowd.grid.tokens import build_token
from aglowd.handlers.base import failure, once
from aglowd.model import Do, Done, Failed, Handler, Json, Outcome, Seen, StepView

MAX_TOKENS = 10_000
"""Of one step: as many as an SRM list has files at most. All of them are one effect, whose inputs the journal keeps."""


class CreateTokensStep(Handler):
    """One token for each group of input files: SURLs by subband (`SB000`), or result files in order (`AB000`).

    `group`: files a token; 0 = all in one. `keys` are set in each token beside what the GRID_LRT configuration says.
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

    def react(self, step: StepView, params: Any, seen: Seen) -> Outcome:
        if bool(params.surls) == bool(params.files):
            return Failed("a token needs input: give either surls or files, and not an empty list", final=True)
        created = seen.result(CreateTokens)
        if created is None:
            failed = failure(seen)
            return failed if failed is not None else self._create(params)
        names, lists = [], {}
        for name, _, surls in self._groups(params):
            names.append(name)
            lists[name] = "".join(f"{surl}\n" for surl in surls)
        return Done({"token_type": params.token_type, "tokens": names, "count": len(names), "srm": lists})

    def _create(self, params: Any) -> Outcome:
        documents: dict[str, Json] = {}
        try:
            for name, keys, _ in self._groups(params):
                if name in documents:
                    return Failed(f"two groups of files would be the one token {name}", final=True)
                if len(documents) == MAX_TOKENS:
                    return Failed(f"these are more than {MAX_TOKENS} tokens: give a larger group", final=True)
                documents[name] = build_token(params.config, name, params.token_type, {**params.keys, **keys})
        except (ValueError, Permanent) as error:
            return Failed(f"no token can be made of this: {error}", final=True)
        return Do.all(CreateTokens(token_type=params.token_type, tokens=documents))

    def _groups(self, params: Any) -> Iterator[tuple[str, dict[str, Json], tuple[str, ...]]]:
        """(token id, its own keys, its SURLs), the same for the same parameters."""
        if params.surls:
            by_subband = sorted(params.surls, key=lambda surl: (parse_surl(surl).subband or 0, surl))
            for chunk in _chunks(by_subband, params.group):
                start = f"{parse_surl(chunk[0]).subband or 0:03d}"
                name = f"{params.token_type}:SB{start}"
                yield name, {"STARTSB": start, "RESULT_NAME": f"{parse_surl(chunk[0]).obsid}_SB{start}"}, chunk
        else:
            prefix = f"{params.keys['OBSID']}_" if "OBSID" in params.keys else ""
            for number, chunk in enumerate(_chunks(sorted(params.files), params.group)):
                start = f"{number * max(params.group, 1):03d}"
                own = {"ABN": start, "INPUT_FILES": list(chunk), "RESULT_NAME": f"{prefix}AB{start}"}
                yield f"{params.token_type}:AB{start}", own, ()


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

    def react(self, step: StepView, params: Any, seen: Seen) -> Outcome:
        own = {name: {"srm.txt": text} if text else {} for name, text in params.srm.items()}
        return once(seen, AttachFiles(own=own, shared=params.shared))


class ArchiveTokensStep(Handler):
    """Archive the tokens of these types, one tar.gz each, and delete exactly what was read back from there."""

    kind = "archive_tokens"

    class Params(Struct, frozen=True, forbid_unknown_fields=True):
        token_types: tuple[str, ...]
        directory: str

    def react(self, step: StepView, params: Any, seen: Seen) -> Outcome:
        failed = failure(seen)
        if failed is not None:
            return failed
        archives = [seen.result(ArchiveTokens, number) for number in range(len(params.token_types))]
        if not params.token_types:
            return Done({"archives": []})
        # An earlier attempt may have deleted some already: what is left goes into an archive of its own.
        again = f"-{step.attempt}" if step.attempt > 1 else ""
        if not seen.count(ArchiveTokens):
            return Do(
                tuple(
                    ArchiveTokens(
                        token_type=name, url=f"{params.directory}/{name}.tokens{again}.tar.gz", ordinal=number
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
                        ordinal=number,
                    )
                    for number, (name, archive) in enumerate(zip(params.token_types, archives, strict=True))
                )
            )
        return Done({"archives": [archive["url"] for archive in archives]})
