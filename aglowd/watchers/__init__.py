"""Watchers: each observes one outside system on behalf of all fields and knows nothing of pipelines."""

from __future__ import annotations

from aglowd.watchers.arrivals import Arrivals
from aglowd.watchers.base import Watcher
from aglowd.watchers.directories import Directories
from aglowd.watchers.events import Events
from aglowd.watchers.fields import Fields
from aglowd.watchers.git_heads import GitHeads
from aglowd.watchers.images import Images
from aglowd.watchers.inputs import Inputs
from aglowd.watchers.jobs import Jobs
from aglowd.watchers.localities import Localities
from aglowd.watchers.pages import Pages
from aglowd.watchers.pilots import PilotTurns
from aglowd.watchers.proxies import Proxies
from aglowd.watchers.records import Records
from aglowd.watchers.results import Results
from aglowd.watchers.selections import Selections
from aglowd.watchers.srm_lists import SrmLists
from aglowd.watchers.staging import Staging
from aglowd.watchers.tokens import Tokens
from aglowd.watchers.trees import Trees
from aglowd.watchers.troubled import Troubled
from aglowd.watchers.windows import Windows

WATCHERS: tuple[type[Watcher], ...] = (
    Fields,
    SrmLists,
    Proxies,
    Staging,
    Localities,
    Windows,
    Tokens,
    Troubled,
    Results,
    Selections,
    Jobs,
    PilotTurns,
    Directories,
    Trees,
    Arrivals,
    Events,
    Pages,
    GitHeads,
    Images,
    Inputs,
    Records,
)
"""Every source of facts. A new one is a new file and one line here."""
