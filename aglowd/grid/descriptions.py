"""Job descriptions are made from templates, which a site may replace by its own: JDL, sbatch scripts, xRSL.

What must stay true: a text that came from outside becomes one string of the language it is put into, whatever it holds; what
no such string can hold is refused. No secret is given to a template: batch systems show descriptions to everybody.
"""

from __future__ import annotations

import re
import shlex
from functools import lru_cache

from jinja2 import StrictUndefined, Template
from jinja2.sandbox import ImmutableSandboxedEnvironment

from aglowd.errors import Permanent
from aglowd.grid.batch import Order, Terms

_TEXT = re.compile(r"[ -~]*")
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
_ARGUMENT = re.compile(r"[A-Za-z0-9_./:=,+@%~-]+")


def describe(order: Order, terms: Terms, **more: object) -> str:
    """The description of these pilots; Permanent if something cannot be said in it.

    Templates see key, count, executable, arguments, files (the names in the sandbox), requirements, queue, wall_time_s,
    cpus and what the system adds. Executable and arguments hold letters, digits and _./:=,+@%~- only, because
    some systems split them at blanks and show them to a shell.
    """
    if order.count < 1:
        raise Permanent(f"job description: found {order.count} pilots; expected at least one")
    for name in order.sandbox:
        if not _FILE.fullmatch(name):
            raise Permanent(f"job description: found file name {name[:100]!r}; expected letters, digits and _ . + -")
    for word in (order.executable, *order.arguments):
        if not _ARGUMENT.fullmatch(word):
            raise Permanent(f"job description: found {word[:100]!r}; expected letters, digits and _./:=,+@%~-")
    _printable(order.requirements, "requirements")
    values = {
        "key": order.key,
        "count": order.count,
        "executable": order.executable,
        "arguments": order.arguments,
        "files": tuple(order.sandbox),
        "requirements": order.requirements,
        "queue": terms.queue,
        "wall_time_s": int(terms.wall_time_s),
        "cpus": terms.cpus,
        **more,
    }
    try:
        return _compiled(terms.template).render(values)
    except Permanent:
        raise
    except Exception as error:  # A site's own template may do anything wrong.
        raise Permanent(f"job description: the template cannot be filled in: {error}") from error


def _printable(text: str, what: str) -> str:
    if not _TEXT.fullmatch(text):
        raise Permanent(f"job description: {what} {text[:100]!r} holds a line break or a sign outside ASCII")
    return text


def _classad(text: object) -> str:
    """A ClassAd string, as in gLite's and DIRAC's JDL."""
    return '"' + _printable(str(text), "the text").replace("\\", "\\\\").replace('"', '\\"') + '"'


def _xrsl(text: object) -> str:
    """An xRSL string: a quote in it is doubled."""
    return '"' + _printable(str(text), "the text").replace('"', '""') + '"'


def _sh(text: object) -> str:
    """One word of a shell."""
    return shlex.quote(_printable(str(text), "the text"))


_ENVIRONMENT = ImmutableSandboxedEnvironment(
    undefined=StrictUndefined, keep_trailing_newline=True, trim_blocks=True, lstrip_blocks=True, autoescape=False
)
_ENVIRONMENT.filters |= {"classad": _classad, "xrsl": _xrsl, "sh": _sh}


@lru_cache(maxsize=64)
def _compiled(text: str) -> Template:
    return _ENVIRONMENT.from_string(text)
