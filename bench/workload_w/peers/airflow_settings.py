"""How Airflow is told what it needs: variables of its environment. Airflow itself is not imported here."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path

from bench.workload_w.chain import Order

ROOT = Path(__file__).parents[3]
AT_ONCE = 4
"""Tasks that LocalExecutor runs at the same time, each in a process of its own."""


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def environment(order: Order, programs: Path) -> Mapping[str, str]:
    """For every Airflow command of one cell: all that it writes lies in the order's place.

    `programs`: where the command `airflow` is, which it calls by its name.
    """
    port = _free_port()
    return {
        **os.environ,
        **order.environment(),
        "PYTHONPATH": str(ROOT),
        "PATH": os.pathsep.join((str(programs), os.environ["PATH"])),
        "AIRFLOW_HOME": str(order.place / "airflow"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(Path(__file__).parent / "dags"),
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__PARALLELISM": str(AT_ONCE),
        "AIRFLOW__CORE__MAX_ACTIVE_TASKS_PER_DAG": str(max(AT_ONCE, order.load.fields)),
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        # Whoever reaches it may do everything.
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{port}",
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{order.place}/airflow.db",
        "AIRFLOW__TRIGGERER__CAPACITY": "1000",
        # Two cores are busy with the start of tasks alone: with the timeout of 5 s their calls fail, and so do they.
        "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "60",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
    }
