"""What was seen, as the log tells, and each fact whole where the log has cut it. Read-only: for `aglowd replay`.

A fact that was cut is made by its recipe of the one before, or it is the last of its subject, which keeps that whole. What must
stay true: what is shown is what was seen, to the letter, or it is Untold.
"""

from __future__ import annotations

import math
import sqlite3
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping

import msgspec

from aglowd.model import Json, Observation
from aglowd.store.db import queries
from aglowd.store.decided import Untold
from aglowd.store.journal import MAX_EVENT_BYTES, digest_of, is_cut
from aglowd.store.recipes import make
from aglowd.store.rows import dumps, loads
from aglowd.store.runs import STEP

FACTS_IN_MIND = 500
"""Facts that are kept in mind at a time: the next one of a subject is made of them."""
CUT = f"an observation was cut in the log at {MAX_EVENT_BYTES} characters"


class Log:
    """Finds observations by their subject, and shows each whole."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._texts: OrderedDict[int, str] = OrderedDict()
        (forgotten,) = db.execute(queries()["last_forgotten"]).fetchone()
        self._missing_until: float = -math.inf if forgotten is None else forgotten

    def latest_of(self, subject: str, last: int) -> int:
        """The event of the latest observation of the subject up to the event `last`, 0 if there was none, or it was forgotten."""
        number = self._last(subject, last)
        kind, _, id_ = subject.partition(":")
        if number and kind == "run":
            values: dict[str, Json] = {"key": id_, "first": number, "last": last}
            if self._db.execute(queries()["run_began_between"], values).fetchone() is not None:
                return 0
        if number and kind == STEP:
            run, _, name = id_.rpartition("/")
            values = {"run": run, "step": name, "last": last, "kinds": dumps(["StepReset"])}
            reset = self._db.execute(queries()["step_event_before"], values).fetchone()
            if reset is not None and reset["id"] > number:
                return 0
        return number

    def _last(self, subject: str, last: int) -> int:
        found = self._db.execute(queries()["observed_before"], {"subject": subject, "last": last}).fetchone()
        return 0 if found is None else int(found["id"])

    def may_miss(self, number: int) -> bool:
        """Whether something newer than that event (0 = none) may have gone with a run that was packed, and then forgotten."""
        return (self._event(number)["at"] if number else -math.inf) < self._missing_until

    def observation_of(self, number: int) -> Observation:
        """What that event shows; its number stands for the version. Untold if nobody knows the whole of it."""
        event = self._event(number)
        return Observation(number, event["at"], loads(self._text_of(event)))

    def _event(self, number: int) -> sqlite3.Row:
        event: sqlite3.Row = self._db.execute(queries()["get_event"], {"id": number}).fetchone()
        return event

    def _text_of(self, event: sqlite3.Row) -> str:
        """The whole fact, made of the latest one before it that is known whole."""
        subject = self._db.execute(queries()["get_subject"], {"key": event["subject"]}).fetchone()
        args = "" if subject is None else subject["args"]
        cut: list[tuple[int, Json]] = []
        one: sqlite3.Row | None = event
        text: str | None = None
        while one is not None:
            data = loads(one["data"])
            text = self._known(one, data, subject)
            if text is not None:
                break
            if "made" not in data:
                raise Untold(CUT)
            cut.append((one["id"], data))
            one = self._before(one)
        for number, data in reversed(cut):
            text = make(data, args, text or "")
            if text is None:
                raise Untold(CUT)
            self._keep(number, text)
        assert text is not None, event["id"]
        return text

    def _known(self, event: sqlite3.Row, data: Json, subject: sqlite3.Row | None) -> str | None:
        """The fact, if it was not cut, was made before, or is the last of its subject."""
        if not is_cut(data):
            return str(event["data"])
        if event["id"] in self._texts:
            return self._texts[event["id"]]
        text: str | None = None if subject is None else subject["data"]
        if subject is None or text is None:
            return None
        if "digest" in data:
            return text if digest_of(text) == data["digest"] else None
        # An older release wrote it.
        return text if subject["at"] == event["at"] and text.startswith(data["cut"]) else None

    def _before(self, event: sqlite3.Row) -> sqlite3.Row | None:
        """The event of the observation before. Of one observation each who waited for it has an event."""
        number = event["id"]
        while number := self._last(event["subject"], number - 1):
            found = self._event(number)
            if (found["at"], found["data"]) != (event["at"], event["data"]):
                return found
        return None

    def _keep(self, number: int, text: str) -> None:
        self._texts[number] = text
        if len(self._texts) > FACTS_IN_MIND:
            self._texts.popitem(last=False)


class Observed(Mapping[str, Observation]):
    """What was seen of each subject, looked up when a handler asks: what it does not look at may be lost. `arrange`: what is
    done with each fact before it is shown."""

    def __init__(
        self, log: Log, events: Mapping[str, int], arrange: Callable[[Json], Json] = lambda data: data
    ) -> None:
        self._log = log
        self.events = events
        self._arrange = arrange
        self._found: dict[str, Observation] = {}

    def __getitem__(self, key: str) -> Observation:
        if key not in self._found:
            found = self._log.observation_of(self.events[key])
            self._found[key] = msgspec.structs.replace(found, data=self._arrange(found.data))
        return self._found[key]

    def __contains__(self, key: object) -> bool:
        return key in self.events

    def __iter__(self) -> Iterator[str]:
        return iter(self.events)

    def __len__(self) -> int:
        return len(self.events)
