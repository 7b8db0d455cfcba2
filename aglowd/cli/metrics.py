"""`aglowctl metrics`: what Prometheus would scrape."""

from __future__ import annotations

import json

import click

from aglowd.cli import shared
from aglowd.cli.client import SCHEMA, Client


@click.command()
@shared.json_option
@click.pass_obj
def metrics(client: Client, as_json: bool) -> None:
    """Show all metrics in Prometheus' text format, as a scrape of the control socket gets them.

    Example: aglowctl metrics
    """
    with shared.failing_well():
        lines = list(client.stream("metrics"))
    if not as_json:
        click.echo("\n".join(lines))
        return
    from prometheus_client.parser import text_string_to_metric_families

    samples = [
        {"name": sample.name, "labels": sample.labels, "value": sample.value}
        for family in text_string_to_metric_families("\n".join(lines) + "\n")
        for sample in family.samples
    ]
    click.echo(json.dumps({"schema": SCHEMA, "metrics": samples}))
