"""Following the daemon: what was committed, as it comes, over one connection, for as long as somebody wants to know.

What must stay true: nothing is missed. Before events are listened to, the number of the last one is asked for, then all is
looked at, and the events after that number follow; after each break it begins anew with that. No field is asked about
again unless an event names it.
"""

from __future__ import annotations

import json
import math
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from aglowd.cli.client import Client, NotRunning, Silent
from aglowd.errors import AglowError

GATHER_S = 0.5
"""Real seconds in which events are gathered: a busy daemon is asked about what they name at most so often."""
TICK_S = 1.0
"""Real seconds without any event after which whoever follows is called all the same: clocks on screens go on."""
RETRY_S = 1.0
"""Real seconds between two looks whether a daemon that was lost is back."""
PATIENCE_S = 300.0
"""Real seconds for which a lost daemon is waited for: it may be restarted, updated, or on a host that is."""

Event = dict[str, Any]
See = Callable[[Sequence[Event] | None], bool]
"""Called with None: look at everything; else with what happened since, which may be nothing. True = enough was seen."""
_Heard = queue.SimpleQueue[Event | AglowError]


def follow(client: Client, see: See, away: Callable[[AglowError], None], until: float = math.inf) -> bool:
    """Call `see` until it has seen enough, or it is `until` on the monotonic clock; whether it was the first.

    `away` is called once each time the daemon is lost; when it is back, `see` looks at everything. A daemon that is not
    there at the beginning, that does not come back in time, or that refuses, raises what the client raises.
    """
    answered: float | None = None
    is_away = False
    while True:
        try:
            since = _last_event(client)
            if see(None):
                return True
            answered, is_away = time.monotonic(), False
            heard: _Heard = queue.SimpleQueue()
            threading.Thread(target=_listen, args=(client, since, heard), daemon=True).start()
            while time.monotonic() < until:
                if see(_gathered(heard, until)):
                    return True
                answered = time.monotonic()
            return False
        except (NotRunning, Silent) as error:
            if answered is None or time.monotonic() > min(until, answered + PATIENCE_S):
                raise
            if not is_away:
                away(error)
            is_away = True
        time.sleep(RETRY_S)


def _last_event(client: Client) -> int:
    last = 0
    for line in client.stream("v1", "events", query=[("limit", 1)]):
        last = json.loads(line)["id"]
    return last


def _listen(client: Client, since: int, heard: _Heard) -> None:
    """In a thread of its own, because nobody can wait for a line and for the time at once."""
    try:
        for line in client.stream("v1", "events", query=[("follow", 1), ("since", since), ("limit", 1000)]):
            heard.put(json.loads(line))
        heard.put(NotRunning("aglowd has stopped"))
    except AglowError as error:
        heard.put(error)
    except ValueError:
        heard.put(Silent("aglowd was cut off in the middle of a line"))


def _gathered(heard: _Heard, until: float) -> list[Event]:
    """What comes next, and what comes soon after it; nothing after a tick."""
    events: list[Event] = []
    end = min(until, time.monotonic() + TICK_S)
    while (left_s := end - time.monotonic()) > 0:
        try:
            said = heard.get(timeout=left_s)
        except queue.Empty:
            break
        if isinstance(said, AglowError):
            raise said
        if not events:
            end = min(until, time.monotonic() + GATHER_S)
        events.append(said)
    return events
