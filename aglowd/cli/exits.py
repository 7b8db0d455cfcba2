"""How the commands end: every exit code of `aglowd` and `aglowctl`, in one place, with what it says.

What must stay true: a code keeps its meaning for ever, since scripts and systemd's units rest on it; README.md, the reference
and the manual pages show these words.
"""

from __future__ import annotations

from collections.abc import Mapping

OK = 0
ERROR = 1
USAGE = 2
NOT_RUNNING = 3
NOT_PERMITTED = 4
DOUBT = 5
PENDING = 8
TEMPFAIL = 75
CONFIG = 78

ASKING: Mapping[int, str] = {
    OK: "ok",
    ERROR: "error; of a command that waits: what it waits for can never come any more",
    USAGE: "wrong usage",
    NOT_RUNNING: "aglowd is not running",
    NOT_PERMITTED: "you may not",
    DOUBT: "a field waits for a person: an effect is in doubt, or a verdict is asked for",
    PENDING: "the time is over, and it is still pending",
}
"""Those of `aglowctl`."""

RUNNING: Mapping[int, str] = {
    OK: "stopped in order; all well",
    ERROR: "check: problems; demo: a field was not archived; replay: something would be decided otherwise",
    USAGE: "wrong usage",
    NOT_RUNNING: "replay: aglowd is not running, and no backup was named",
    NOT_PERMITTED: "replay: you may not ask aglowd",
    DOUBT: "start --once: something is in doubt",
    TEMPFAIL: "another aglowd has the state directory, or it cannot be used; replay: the copy cannot be had or read",
    CONFIG: "the configuration is wrong",
}
"""Those of `aglowd`: 75 and 78 are what sysexits.h calls EX_TEMPFAIL and EX_CONFIG."""
