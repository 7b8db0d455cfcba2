"""What stands behind the routes: the store, and whoever takes the orders.

What must stay true: an answer carries the number of its schema and the time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import msgspec
import structlog
from aiohttp import web

from aglowd.adoption import Adoption
from aglowd.capacity import Capacity
from aglowd.clock import Clock
from aglowd.control.bodies import Verdict
from aglowd.control.followers import Followers
from aglowd.control.health import Health
from aglowd.control.schemas import SCHEMA, Schemas
from aglowd.doctor import Doctor
from aglowd.field_orders import FieldOrders
from aglowd.model import Json
from aglowd.orders import Orders
from aglowd.steering import Steering
from aglowd.store.store import Store
from aglowd.token_orders import TokenOrders

Reload = Callable[[int | None, str, bool], Awaitable[dict[str, Json]]]
"""(uid, reason, dry_run) → what is another; ConfigError with every problem of a configuration that cannot be used."""
Settle = Callable[[Verdict, int], Awaitable[str]]
"""(verdict, uid) → what was done; AglowError says why it cannot be."""


class Desk:
    """Where the routes find what they ask. Its parts are those of `Control`; one that a test left out is None."""

    def __init__(
        self,
        store: Store,
        health: Callable[[], Health],
        clock: Clock,
        version: str,
        *,
        settle: Settle | None,
        candidates: Callable[[], Awaitable[dict[str, Json]]] | None,
        reload: Reload | None,
        capacity: Capacity | None,
        silence: Callable[[str], Json | None],
        metrics: Callable[[web.Request], Awaitable[web.Response]] | None,
        log_place: Mapping[str, Json] | None,
        doctor: Doctor | None,
        schemas: Schemas,
    ) -> None:
        self.store = store
        self.health = health
        self.clock = clock
        self.version = version
        self.settle = settle
        self.candidates = candidates
        self.reload = reload
        self.capacity = capacity
        self.silence = silence
        self.metrics = metrics
        self.log_place = log_place
        self.doctor = doctor
        self.schemas = schemas
        self.followers = Followers(store)
        self.log = structlog.get_logger("control")
        self._orders: Orders | None = None
        self._token_orders: TokenOrders | None = None
        self._steering: Steering | None = None
        self._field_orders: FieldOrders | None = None
        self._adoption: Adoption | None = None

    def seat(
        self,
        orders: Orders | None,
        token_orders: TokenOrders | None,
        steering: Steering | None,
        field_orders: FieldOrders | None,
        adoption: Adoption | None,
    ) -> None:
        """From now on these take the orders."""
        self._orders = orders
        self._token_orders = token_orders
        self._steering = steering
        self._field_orders = field_orders
        self._adoption = adoption

    @property
    def orders(self) -> Orders:
        """Who takes lists of files."""
        assert self._orders is not None
        return self._orders

    @property
    def token_orders(self) -> TokenOrders:
        """Who knows tokens and jobs."""
        assert self._token_orders is not None
        return self._token_orders

    @property
    def steering(self) -> Steering:
        """Who steers runs."""
        assert self._steering is not None
        return self._steering

    @property
    def field_orders(self) -> FieldOrders:
        """Who knows the catalogue."""
        assert self._field_orders is not None
        return self._field_orders

    @property
    def adoption(self) -> Adoption:
        """Who takes over what another program has begun."""
        assert self._adoption is not None
        return self._adoption

    def answer(self, values: Mapping[str, Json], status: int = 200) -> web.Response:
        """One answer, as JSON."""
        body = msgspec.json.encode({"schema": SCHEMA, "now": self.clock.now(), **values})
        return web.Response(body=body, status=status, content_type="application/json")
