"""How `make docs` makes a site of these pages, which are written to be read on a forge as well.

What must stay true: no page is written twice, every link leads somewhere in both places, and reading the site asks no network.
"""

from __future__ import annotations

import re
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).parent.parent
ABOVE = {"start": "README.md", "contributing": "CONTRIBUTING.md", "changelog": "CHANGELOG.md"}
"""Where the site shows those pages that a forge wants at the top of the tree."""

project = "aglowd"
author = "the authors of aglowd"
release = version = re.findall(r'__version__ = "(.+)"', (ROOT / "aglowd" / "__init__.py").read_text("utf-8"))[0]

extensions = ["myst_parser", "sphinx.ext.autodoc"]
source_suffix = {".md": "markdown"}
# Of headings down to this level, as a forge does for all; deeper ones nothing links to.
myst_heading_anchors = 4
# Where it says so in so many words; many pages show code of which no lexer knows the language.
highlight_language = "none"

# A theme of one column of pages and one of headings, for narrow screens, too; it takes no font or script from elsewhere.
html_theme = "furo"
html_title = f"aglowd {release}"
html_copy_source = False
html_show_copyright = False

autodoc_member_order = "bysource"
# Many types are known to the type checker alone; each docstring says in words what goes in and comes out.
autodoc_typehints = "none"


def show_from_above(app: Sphinx, docname: str, content: list[str]) -> None:
    """A page from above is read as if it lay here, and what links to one finds it."""
    if docname in ABOVE:
        text = (ROOT / ABOVE[docname]).read_text(encoding="utf-8")
        content[0] = re.sub(r"\]\((?!https:|#)", "](../", text).replace("](../docs/", "](")
    for here, above in ABOVE.items():
        content[0] = content[0].replace(f"](../{above}", f"]({here}.md")


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", show_from_above)
