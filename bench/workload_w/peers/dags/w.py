"""The chain as a DAG of Airflow: a group of tasks that is mapped over the fields; waits are deferred to the triggerer."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
from airflow.sdk import BaseSensorOperator, dag, task, task_group

from bench.workload_w import asker
from bench.workload_w.chain import ACT, CHAIN, Order
from bench.workload_w.peers.airflow_trigger import Done

ORDER = Order.told()


class Wait(BaseSensorOperator):
    """Gives its place to others until the service says that the wait is done."""

    template_fields = ("field",)

    def __init__(self, *, field: str, step: int, **others: Any) -> None:
        super().__init__(**others)
        self.field = field
        self.step = step

    def execute(self, context: Any) -> None:
        """Hand the wait to the triggerer."""
        trigger = Done(ORDER.url, self.field, self.step, ORDER.load.poll_s)
        self.defer(trigger=trigger, method_name="resume")

    def resume(self, context: Any, event: Any) -> None:
        """It is done; there is nothing more to do."""


@task(retries=3, retry_delay=1)
def act(field: str, step: int) -> int:
    """Do it."""

    async def ask() -> int:
        async with aiohttp.ClientSession() as session:
            return await asker.act(session, ORDER.url, field, step)

    return asyncio.run(ask())


@dag(schedule="@once", max_active_tasks=ORDER.load.fields)
def w() -> None:
    """All fields."""

    @task_group
    def field_chain(field: str) -> None:
        before: Any = None
        for step, what in enumerate(CHAIN):
            if what == ACT:
                now = act.override(task_id=f"s{step}")(field, step)
            else:
                now = Wait(task_id=f"s{step}", field=field, step=step, retries=3, retry_delay=1)
            if before is not None:
                before >> now
            before = now

    field_chain.expand(field=ORDER.load.names)


w()
