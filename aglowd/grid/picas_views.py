"""The views of the token database: GRID_LRT's five for each token type, and ours over all types at once.

The text of GRID_LRT's views is its own, to the letter (a test compares): launchers, people's scripts and the PiCaS web
page read them. They disagree with each other in the corner cases, so aglowd counts by its own view alone.
"""

from __future__ import annotations

import re
from typing import Any

from aglowd.errors import Permanent

API_VERSION = "1.0.7"
"""GRID_LRT's version, which it writes into its design documents and tokens."""
STATES = ("todo", "locked", "done", "error", "other")
DESIGN_NAME = "aglowd"
STATES_VIEW = "states"
OWNERS_VIEW = "owners"

_TOKEN_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")

_STATES_MAP = """function (doc) {
  // Every token is in exactly one state, whoever made it. A reset sets lock, done and status together.
  if (typeof doc.type !== 'string') { return; }
  var state = 'other';
  if (doc.status === 'done') { state = 'done'; }
  else if (doc.status === 'error') { state = 'error'; }
  else if (doc.lock === doc.done && (doc.lock === 99 || doc.lock === -1)) { state = 'error'; }
  else if (doc.done > 0 && doc.output !== undefined) {
    if (doc.output === 0 || doc.output === '' || doc.output === '0') { state = 'done'; } else { state = 'error'; }
  }
  else if (doc.lock === 0 && doc.done === 0) { state = 'todo'; }
  else if (doc.lock > 0 && doc.done === 0) { state = 'locked'; }
  emit([doc.type, state], 1);
}
"""

_OWNERS_MAP = """function (doc) {
  if (doc.aglowd !== undefined && doc.aglowd.key !== undefined) { emit(doc.aglowd.key, 1); }
}
"""

DESIGN_DOC: dict[str, Any] = {
    "_id": f"_design/{DESIGN_NAME}",
    "language": "javascript",
    "views": {
        STATES_VIEW: {"map": _STATES_MAP, "reduce": "_sum"},
        OWNERS_VIEW: {"map": _OWNERS_MAP, "reduce": "_sum"},
    },
}
"""All tokens by [type, state], and by the effect that made them: grouped sums count them all in one query each."""

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
