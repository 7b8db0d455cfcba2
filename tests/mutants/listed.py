"""All mutations. Each lies in the file that is named after what it breaks."""

from __future__ import annotations

from .at_once import AT_ONCE_AND_PAGES
from .catalogue import CATALOGUE
from .deeds import DEEDS
from .kinds import Mutant
from .packed import PACKED
from .pilots import PILOTS
from .quality import QUALITY
from .replay import REPLAYED
from .routes import ROUTES
from .sandboxes import SANDBOXES
from .staging import STAGING
from .steering import STEERED
from .storage import KEPT
from .store import INSIDE
from .world import OUTSIDE

MUTANTS: tuple[Mutant, ...] = (
    *INSIDE,
    *DEEDS,
    *OUTSIDE,
    *STAGING,
    *KEPT,
    *PILOTS,
    *STEERED,
    *SANDBOXES,
    *QUALITY,
    *REPLAYED,
    *ROUTES,
    *CATALOGUE,
    *PACKED,
    *AT_ONCE_AND_PAGES,
)
