"""Steps for general use: run a program, call a web service or wait for its answer."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from msgspec import Struct

from aglowd.durations import duration_s
from aglowd.effects.general import CallHttp, RunCommand
from aglowd.handlers.base import failure, once
from aglowd.model import Do, Done, Handler, Json, Outcome, Seen, StepView, Subject, Wait
from aglowd.templates import TemplateProblem, condition


class Command(Handler):
    """Run a program: argv, no shell. Outputs: `rc`, `stdout`."""

    kind = "command"

    class Params(Struct, frozen=True, forbid_unknown_fields=True):
        argv: tuple[str, ...]
        run_timeout: str = "10m"
        ok: tuple[int, ...] = (0,)
        creates: str = ""
        repeatable: bool = False
        environment: dict[str, str] = {}
        stdin: str = ""

        takes_secrets: ClassVar[frozenset[str]] = frozenset({"environment", "stdin"})

        def __post_init__(self) -> None:
            duration_s(self.run_timeout)

    def react(self, step: StepView, params: Any, seen: Seen) -> Outcome:
        effect = RunCommand(
            argv=params.argv,
            timeout_s=duration_s(params.run_timeout),
            ok=params.ok,
            creates=params.creates,
            repeatable=params.repeatable,
            environment=params.environment,
            stdin=params.stdin,
        )
        return once(seen, effect)


def page(url: str, poll_s: float, occasion: str, headers: Mapping[str, str] = MappingProxyType({})) -> Subject:
    """What a web service answers to GET. Each occasion is a subject of its own, so that its answer is never an old one."""
    args: dict[str, Json] = {"url": url, "poll_s": poll_s}
    return Subject("http", occasion, {**args, "headers": dict(headers)} if headers else args)


def holds(expression: str, answer: Json) -> bool:
    """Whether the expression holds; an answer without what it asks for is not it yet."""
    try:
        return condition(expression, {"status": answer["status"], "body": answer["body"]})
    except TemplateProblem:
        return False


class Http(Handler):
    """Call a web service once; or, with `until`, ask it with GET until the expression over `status` and `body` holds."""

    kind = "http"

    class Params(Struct, frozen=True, forbid_unknown_fields=True):
        url: str
        method: str = "GET"
        body: Json = None
        repeatable: bool = False
        until: str = ""
        poll: str = "5m"
        due: str = "1d"
        headers: dict[str, str] = {}

        takes_secrets: ClassVar[frozenset[str]] = frozenset({"headers", "body"})

        def __post_init__(self) -> None:
            duration_s(self.poll)
            duration_s(self.due)

    def react(self, step: StepView, params: Any, seen: Seen) -> Outcome:
        if params.until:
            subject = page(params.url, duration_s(params.poll), step.key, params.headers)
            answer = seen.of(subject)
            if answer is not None and holds(params.until, answer):
                return Done(answer)
            return Wait((subject,), f"until {params.until} at {params.url}", duration_s(params.due))
        failed = failure(seen)
        if failed is not None:
            return failed
        result = seen.result(CallHttp)
        if result is not None:
            return Done(result)
        return Do.all(
            CallHttp(
                method=params.method,
                url=params.url,
                body=params.body,
                repeatable=params.repeatable,
                headers=params.headers,
            )
        )
