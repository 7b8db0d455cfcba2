"""Prometheus' own tool reads what is served, and plays through when the alerts fire."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

from tests.test_metrics import ALERTS, Scraped, scraped

__all__ = ["scraped"]

RULES = """
rule_files: [{alerts}]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - {{series: 'up{{job="aglowd"}}', values: '1x10 0x30'}}
      - {{series: 'aglowd_doubts', values: '0x10 2x30'}}
      - {{series: 'aglowd_proxy_left_seconds', values: '90000x10 40000x30'}}
      - {{series: 'aglowd_system_up{{system="lta"}}', values: '0x40'}}
      - {{series: 'aglowd_loop_progress_age_seconds{{loop="reactor"}}', values: '1x10 200x30'}}
      - {{series: 'aglowd_loop_grace_seconds{{loop="reactor"}}', values: '120x40'}}
      - {{series: 'aglowd_oldest_wait_seconds{{kind="stage"}}', values: '300000x90'}}
      - {{series: 'aglowd_oldest_wait_seconds{{kind="run"}}', values: '300000x90'}}
      - {{series: 'aglowd_disk_free_bytes', values: '9e11x10 1e9x30'}}
      - {{series: 'aglowd_disk_size_bytes', values: '1e12x40'}}
    promql_expr_test:
      - expr: count by (alertname) (ALERTS{{alertstate="firing"}})
        eval_time: 9m
        exp_samples: []
      - expr: count by (alertname) (ALERTS{{alertstate="firing"}})
        eval_time: 35m
        exp_samples:
{firing}
      - expr: ALERTS{{alertstate="firing", alertname="AglowdWaitsTooLong"}}
        eval_time: 65m
        exp_samples:
          - labels: 'ALERTS{{alertname="AglowdWaitsTooLong", alertstate="firing", kind="stage", severity="warning"}}'
            value: 1
"""


async def promtool(*words: str, stdin: str = "") -> tuple[int, str]:
    """Return code, and all that it says."""
    argv = ["promtool", *words]
    done = await asyncio.to_thread(subprocess.run, argv, input=stdin, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


async def test_the_metrics_are_as_prometheus_wants_them(scraped: Scraped) -> None:
    assert await promtool("check", "metrics", stdin=(await scraped.metrics.text()).decode()) == (0, "")


async def test_alerts_fire_when_they_should(tmp_path: Path) -> None:
    code, said = await promtool("check", "rules", str(ALERTS))
    assert code == 0, said
    names = ("Down", "Stuck", "Doubt", "ProxyLow", "SystemDown", "DiskLow")
    firing = "\n".join(f"          - labels: '{{alertname=\"Aglowd{name}\"}}'\n            value: 1" for name in names)
    path = tmp_path / "rules.yml"
    path.write_text(RULES.format(alerts=ALERTS, firing=firing), encoding="utf-8")
    code, said = await promtool("test", "rules", str(path))
    assert code == 0, said
