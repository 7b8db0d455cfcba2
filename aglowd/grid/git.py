"""Git repositories, as far as `git ls-remote` shows them: which commit a branch or a tag is at. Nothing is fetched.

What must stay true: nobody is asked for a password, and neither a URL nor the name of a branch is ever an option of git.
"""

from __future__ import annotations

import re

from aglowd.errors import Permanent, Temporary
from aglowd.grid.proc import Processes
from aglowd.grid.words import quoted

TIMEOUT_S = 60.0
MAX_OUTPUT_BYTES = 1 << 20
"""Of what a repository says of one name: some hundred bytes, unless it is odd."""
ENVIRONMENT = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "true",
    "GIT_SSH_COMMAND": "ssh -o BatchMode=yes",
    # Not `ext`, which runs a program of the URL's choice.
    "GIT_ALLOW_PROTOCOL": "file:git:http:https:ssh",
    "LC_ALL": "C",
}
_LINE = re.compile(r"([0-9a-f]{40}|[0-9a-f]{64})\t(\S+)")


async def find_head(processes: Processes, url: str, ref: str) -> str:
    """The commit at which that branch, tag or full ref is; absent when the repository answers and has none of that name.

    A branch comes before a tag of the same name; of an annotated tag the commit counts, not the tag.
    Source: git-ls-remote(1).
    """
    if url.startswith("-") or ref.startswith("-"):
        raise Permanent(f"{url} {ref}: neither a repository nor a ref begins with a hyphen")
    ended = await processes.run(
        ["git", "ls-remote", "--", url, ref, f"{ref}^{{}}"],
        write=False,
        timeout_s=TIMEOUT_S,
        max_output_bytes=MAX_OUTPUT_BYTES,
        env=ENVIRONMENT,
    )
    if ended.rc != 0:
        raise Temporary(f"git ls-remote {url}: {quoted(ended.stderr.strip() or f'it ended with {ended.rc}')}")
    found = {match[2]: match[1] for line in ended.stdout.splitlines() if (match := _LINE.fullmatch(line))}
    for name in (ref, f"refs/heads/{ref}", f"refs/tags/{ref}^{{}}", f"refs/tags/{ref}"):
        peeled = f"{name}^{{}}"
        if peeled in found or name in found:
            return found.get(peeled) or found[name]
    raise Permanent(f"{url} has no branch or tag {ref!r}", absent=True)
