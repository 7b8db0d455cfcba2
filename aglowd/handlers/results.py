"""Collect what the tokens say they have written, and look whether it is really there."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from aglowd.handlers.base import HOUR_S, named
from aglowd.handlers.files import directory
from aglowd.handlers.wait_tokens import results_of
from aglowd.model import Done, Failed, Handler, Outcome, Seen, StepView, Wait


class CheckResults(Handler):
    """The `Results_location` of every done token, each seen in the directory and not empty. Output: `files`, their URLs."""

    kind = "check_results"

    class Params(Struct, frozen=True, forbid_unknown_fields=True):
        token_type: str
        directory: str

    def react(self, step: StepView, params: Any, seen: Seen) -> Outcome:
        tokens = results_of(params.token_type, f"{step.key}/results")
        files = directory(params.directory, f"{step.key}/files")
        results, listing = seen.of(tokens), seen.of(files)
        if results is None or listing is None:
            return Wait((tokens, files), f"looking for result files in {params.directory}", HOUR_S)
        sizes = {entry["url"]: entry["size_bytes"] for entry in listing["files"]}
        urls = sorted(results["done"].values())
        missing = [url or "(a token without Results_location)" for url in urls if not sizes.get(url)]
        if missing:
            return Failed(f"{len(missing)} of {len(urls)} result files are absent or empty: {named(missing)}")
        return Done({"files": urls, "size_bytes": sum(sizes[url] for url in urls), "without": sorted(results["other"])})
