"""What the outside said, as our messages may repeat it: on one line, cut, and without a secret.

A server that refuses a login likes to repeat it. Error texts end up in the journal, in events and in answers of the
control socket, so whatever an adapter quotes goes through here.
"""

from __future__ import annotations

from aglowd.log import redact_text

REASON_CHARS = 300
"""So much of what an outside system said is quoted."""
MAX_SAID_CHARS = 65_536
"""So much of it is looked at."""


def quoted(*said: str, most: int = REASON_CHARS) -> str:
    """The texts one behind the other, in at most `most` characters."""
    text = " ".join(one[:MAX_SAID_CHARS] for one in said)
    return " ".join(redact_text(text).split())[:most]


def shown(value: object, most: int = 100) -> str:
    """Any value that was found where another was expected; its repr, if it has one."""
    try:
        return quoted(repr(value), most=most)
    except RecursionError:
        return f"a {type(value).__name__} nested too deep to be shown"
