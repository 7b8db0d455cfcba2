"""`python -m tests.screens [STORY…]`: type all that the pages show anew, and write into them what comes of it."""

from __future__ import annotations

import sys

from tests.screens import pages
from tests.screens.played import play
from tests.screens.stage import STORIES


def main(names: list[str]) -> int:
    wrong = []
    for name in names or sorted(STORIES):
        stage = play(name)
        wrong += stage.wrong
        print(f"{name}: {len(stage.made)} screens, {pages.write(stage.made)} of them new")
    print("\n".join(wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
