"""Collect what the tokens say they have written, and look whether it is really there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from aglowd.handlers.base import HOUR_S, named
from aglowd.handlers.files import directory
from aglowd.handlers.missing import Missing, not_enough
from aglowd.handlers.wait_tokens import results_of
from aglowd.model import Done, Failed, Handler, Outcome, Seen, StepView, Subject, Wait

MAX_DIRECTORIES = 1000
"""In which the results of one pass may lie; each is listed once."""


class Collect(Handler):
    """The `Results_location` of every done token, each seen where it should be, not empty, and as long as its token says.

    `directory`: where all of them must lie; "" = wherever each token says. `missing`: what subbands may be without a result,
    where each token is one subband. Outputs: `files` (URLs), `size_bytes`, `without`
    (tokens that are not done).
    """

    kind = "collect"

    class Params(Struct, frozen=True, forbid_unknown_fields=True):
        token_type: str
        directory: str = ""
        missing: Missing | None = None
        site: str = ""

    def react(self, step: StepView, params: Any, seen: Seen) -> Outcome:
        tokens = results_of(params.token_type, f"{step.key}/results", params.site)
        results = seen.of(tokens)
        if results is None and not params.directory:
            return Wait((tokens,), f"looking what tokens of {params.token_type} have written", HOUR_S)
        if results is not None and not results["done"]:
            return Failed(f"no token of type {params.token_type} is done: {len(results['other'])} are not")
        urls = sorted(results["done"].values()) if results else []
        places = [params.directory] if params.directory else _directories(urls)
        if len(places) > MAX_DIRECTORIES:
            return Failed(
                f"the results lie in {len(places)} directories; expected at most {MAX_DIRECTORIES}", final=True
            )
        listings = [directory(place, f"{step.key}/files/{place}") for place in places]
        if results is None or any(seen.of(listing) is None for listing in listings):
            return Wait((tokens, *listings), f"looking for result files in {named(places)}", HOUR_S)
        sizes = _sizes(seen, listings)
        said: dict[str, int] = results.get("sizes", {})
        missing = [url or "(a token without Results_location)" for url in urls if not sizes.get(url)]
        if missing:
            return Failed(f"{len(missing)} of {len(urls)} result files are absent or empty: {named(missing)}")
        short = [
            f"{url} ({sizes[url]} of {said[url]} bytes)" for url in urls if said.get(url, sizes[url]) != sizes[url]
        ]
        if short:
            return Failed(
                f"{len(short)} of {len(urls)} result files are not as long as their tokens say: {named(short)}"
            )
        policy = getattr(params, "missing", None)  # Its older name has no such parameter.
        if lacking := not_enough(results["done"], policy, results["other"]):
            return Failed(f"tokens of {params.token_type}: {lacking}")
        return Done({"files": urls, "size_bytes": sum(sizes[url] for url in urls), "without": sorted(results["other"])})


class CheckResults(Collect):
    """As `collect` in one directory; its older name, which pipelines that run still have."""

    kind = "check_results"

    class Params(Struct, frozen=True, forbid_unknown_fields=True):
        token_type: str
        directory: str
        site: str = ""


def _directories(urls: list[str]) -> list[str]:
    return list(dict.fromkeys(url.rpartition("/")[0] for url in urls if url))


def _sizes(seen: Seen, listings: list[Subject]) -> Mapping[str, int]:
    return {entry["url"]: entry["size_bytes"] for listing in listings for entry in seen.of(listing)["files"]}
