"""All mutations. Each lies in the file that is named after what it breaks."""

from __future__ import annotations

from .deeds import DEEDS
from .kinds import Mutant
from .staging import STAGING
from .storage import KEPT
from .store import INSIDE
from .world import OUTSIDE

MUTANTS: tuple[Mutant, ...] = (*INSIDE, *DEEDS, *OUTSIDE, *STAGING, *KEPT)
