"""`python -m tests.screens [STORY…]`: type all that the pages show anew, and write into them what comes of it."""

from __future__ import annotations

import sys

from tests.screens import pages
from tests.screens.played import play
from tests.screens.stage import STORIES


def main(names: list[str]) -> int:
    made: dict[pages.Block, str] = {}
    wrong: list[str] = []
    for name in names or sorted(STORIES):
        stage = play(name)
        made.update(stage.made)
        wrong += stage.wrong
    # All at once: where a block stands is known of the pages as they were.
    print(*wrong, f"{len(made)} screens, {pages.write(made)} of them new", sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
