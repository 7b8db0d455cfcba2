"""The views of the token database: GRID_LRT's five for each token type, and ours over all types at once.

The text of GRID_LRT's views is its own, to the letter (a test compares): launchers, people's scripts and the PiCaS web
page read them. They disagree with each other in the corner cases, so aglowd counts by its own view alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeGuard

from aglowd.errors import Permanent

API_VERSION = "1.0.7"
"""GRID_LRT's version, which it writes into its design documents and tokens."""
STATES = ("todo", "locked", "done", "error", "other")
DESIGN_NAME = "aglowd"
TYPE_VIEWS = ("todo", "locked", "done", "error")
"""Of STATES those that GRID_LRT's views of a type know."""
STATES_VIEW = "states"
OWNERS_VIEW = "owners"
TAKEN_VIEW = "taken"
PILOTS_VIEW = "pilots"

_TOKEN_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")

_STATE = """
  // Every token is in exactly one state, whoever made it: docs/tokens.md lists what there is.
  if (typeof doc.type !== 'string') { return; }
  var state = 'other';
  var code = doc.output;
  if (doc.exit_code !== undefined && doc.exit_code !== '') { code = doc.exit_code; }
  if (doc.lock === 0 && doc.done === 0) { state = 'todo'; }
  else if (doc.status === 'done') { state = 'done'; }
  else if (doc.status === 'error') { state = 'error'; }
  else if (doc.lock < 0 || (doc.lock === 99 && doc.done === 99)) { state = 'error'; }
  else if (doc.done > 0 && code !== undefined) {
    if (code === 0 || code === '' || code === '0') { state = 'done'; } else { state = 'error'; }
  }
  else if (doc.lock > 0 && doc.done === 0) { state = 'locked'; }
"""


def state_of(document: Mapping[str, Any]) -> str:
    """The state of a token at hand, as `_STATE` tells it of those that the database counts."""
    lock, done, status = document.get("lock"), document.get("done"), document.get("status")
    code = document.get("exit_code", "")
    code = document.get("output", _ABSENT) if code == "" else code
    if is_number(lock) and is_number(done) and lock == done == 0:
        return "todo"
    if status in ("done", "error"):
        return str(status)
    if is_number(lock) and (lock < 0 or (lock == 99 and done == 99)):
        return "error"
    if is_number(done) and done > 0 and code is not _ABSENT:
        return "done" if code in ("", "0") or (is_number(code) and code == 0) else "error"
    return "locked" if is_number(lock) and lock > 0 and is_number(done) and done == 0 else "other"


def is_held(document: Mapping[str, Any]) -> bool:
    """Whether a pilot works on the token, whatever it says of its state."""
    return is_number(document.get("lock")) and document["lock"] > 0 and not document.get("done")


def is_number(value: Any) -> TypeGuard[float]:
    """As JavaScript has it: true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


_ABSENT = object()
JOB_KEYS = (
    "dirac_job_id",
    "wms_job_id",
    "cream_job_id",
    "pbs_job_id",
    "slurm_job_id",
    "arc_job_id",
    "aglowd_job_id",
)
"""Under which a token names the job that holds it, by the launchers of PiCaS, of GRID_LRT and of aglowd."""
_JOB = "".join(f"  if (doc.{key}) {{ job = doc.{key}; }}\n" for key in reversed(JOB_KEYS))

_STATES_MAP = f"""function (doc) {{{_STATE}  emit([doc.type, state], 1);
}}
"""

_TAKEN_MAP = f"""function (doc) {{{_STATE}  if (state === 'todo' || state === 'done') {{ return; }}
  var job = '';
{_JOB}  var retries = doc.aglowd ? doc.aglowd.retries : 0;
  emit(doc.type, [state, doc._rev, doc.lock, job, doc.hostname, retries, doc.lock > 0 && !doc.done]);
}}
"""

_OWNERS_MAP = """function (doc) {
  if (doc.aglowd !== undefined && doc.aglowd.key !== undefined) { emit(doc.aglowd.key, 1); }
}
"""

_PILOTS_MAP = """function (doc) {
  // What pilots leave behind is no token: it has no type of its own, so that nobody's views see it.
  if (doc.type === undefined && doc.aglowd !== undefined && doc.aglowd.pilot !== undefined) {
    emit(['key', doc.aglowd.pilot], doc.aglowd.job);
    emit(['type', doc.aglowd.type], doc.aglowd.job);
  }
}
"""

DESIGN_DOC: dict[str, Any] = {
    "_id": f"_design/{DESIGN_NAME}",
    "language": "javascript",
    "views": {
        STATES_VIEW: {"map": _STATES_MAP, "reduce": "_sum"},
        TAKEN_VIEW: {"map": _TAKEN_MAP},
        OWNERS_VIEW: {"map": _OWNERS_MAP, "reduce": "_sum"},
        PILOTS_VIEW: {"map": _PILOTS_MAP},
    },
}
"""All tokens by [type, state], and by the effect that made them: grouped sums count them all in one query each. Then those that
somebody has taken and not finished well, and the marks that pilots left."""

# From here to the end of _OVERVIEW_REDUCE the text is GRID_LRT's, blanks at the ends of lines included (token.py).
_VIEW = """function(doc) {{
   if(doc.type == "{0}") {{
      if({1}) {{
         emit({2}, {3});
      }} 
   }} 
}}
"""  # noqa: W291 - the blanks are part of the text

_OVERVIEW = """function(doc) {{
   if(doc.type == "{0}" )
     {{
       if (doc.lock == 0 && doc.done == 0){{
          emit('todo', 1);
       }}
       if(doc.lock > 0 && doc.status == 'downloading' ) {{
          emit('downloading', 1);
       }}
       if(doc.lock > 0 && doc.done > 0 && doc.output == 0 ) {{
          emit('done', 1);
       }}
       if(doc.lock > 0 && doc.output != 0 && doc.output != "" ) {{
          emit('error', 1);
       }}
       if(doc.lock > 0 && doc.status == 'launched' ) {{
          emit('waiting', 1);
       }}
       if(doc.lock > 0  && doc.done==0 && doc.status!='downloading' ) {{
          emit('running', 1);
      }}
     }}  
}}
"""  # noqa: W291 - the blanks are part of the text

_OVERVIEW_REDUCE = """function (key, values, rereduce) {
   return sum(values);
}   
"""  # noqa: W291 - the blanks are part of the text

_VIEWS = {
    "todo": ("doc.lock ==  0 && doc.done == 0 ", "doc._id", "doc._id"),
    "locked": ("doc.lock > 0 && doc.done == 0 ", "doc._id", "doc.status"),
    "done": ('doc.status == "done"', "doc._id", "doc._id"),
    "error": ('doc.status == "error" ', "doc._id", "doc.status"),
}


def check_token_type(name: str) -> None:
    """Raise Permanent for a name that is not letters, digits and _.+- : it is pasted into JavaScript."""
    if name == DESIGN_NAME:
        raise Permanent(f"found token type {name}; expected another name: its design document is that of all types")
    if not _TOKEN_TYPE.fullmatch(name):
        raise Permanent(
            f"found token type {name[:100]!r}; expected letters, digits and _ . + - after a letter or digit"
        )


def token_design_doc(token_type: str) -> dict[str, Any]:
    """`_design/<token type>` as GRID_LRT's `TokenList.add_token_views` makes it."""
    check_token_type(token_type)
    views: dict[str, Any] = {name: {"map": _VIEW.format(token_type, *how)} for name, how in _VIEWS.items()}
    views["overview_view"] = {"map": _OVERVIEW.format(token_type), "reduce": _OVERVIEW_REDUCE}
    return {
        "_id": f"_design/{token_type}",
        "language": "javascript",
        "PICAS_API_VERSION": API_VERSION,
        "views": views,
    }
