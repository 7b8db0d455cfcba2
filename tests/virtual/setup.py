"""What one simulated world needs on disk: the catalogue, the SRM lists, and the daemon's configuration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from aglowd.cli.demo import ARCHIVE, HOST
from tests.virtual.script import Script
from tests.world.small import csv_row, srm_lines

ORIGIN = 1_500_000_000.0
"""When every simulated world begins."""
PIPELINE = "sksp"


def obsids(field: str) -> tuple[str, str]:
    """The target's and the calibrator's, as the catalogue has them."""
    cells = csv_row(field).split(",")
    return cells[1], cells[6]


def write_inputs(script: Script, directory: Path) -> None:
    """The catalogue and the lists of the script's fields."""
    (directory / "srm").mkdir(parents=True)
    for field in script.fields:
        for obsid in obsids(field):
            lines = "\n".join(srm_lines(obsid, script.subbands)) + "\n"
            (directory / "srm" / f"srm{obsid}.txt").write_text(lines, encoding="utf-8")
    (directory / "fields.csv").write_text("".join(f"{csv_row(name)}\n" for name in script.fields), encoding="utf-8")


def write_config(script: Script, directory: Path, ready: dict[str, Any]) -> Path:
    """The daemon's configuration for the grid that says `ready`; returns its path."""
    secrets, polls = ready["credentials"], script.polls
    for name in ("lta_password", "couch_password", "stageit_token", "dcache_token"):
        path = directory / name
        path.touch(mode=0o600)
        path.write_text(secrets[name], encoding="utf-8")
    pilot = ["run.sh", "--url", ready["pilots_couch_url"], "--database", secrets["couch_database"]]
    values: dict[str, dict[str, Any]] = {
        "daemon": {"state_dir": str(directory / "state"), "socket": str(directory / "s"), "tool_path": ready["bin"]},
        "clock": {"rate": script.rate, "origin": ORIGIN},
        "catalogue": {
            "path": str(directory / "fields.csv"),
            "srm_dir": str(directory / "srm"),
            "select": ["SND", "JND"],
            "pipeline": PIPELINE,
            "poll": polls["catalogue"],
        },
        "lta": {
            "url": ready["lta_url"],
            "user": secrets["lta_user"],
            "password_file": str(directory / "lta_password"),
        },
        # It settles longer than the longest delay with which a fault shows a new request.
        "staging": {"poll": polls["staging"], "settle": "30m"},
        "stageit": {"url": ready["stageit_url"], "token_file": str(directory / "stageit_token")},
        "dcache": {
            "url": ready["dcache_url"],
            "token_file": str(directory / "dcache_token"),
            "poll": polls["dcache"],
        },
        "picas": {
            "url": ready["couch_url"],
            "database": secrets["couch_database"],
            "user": secrets["couch_user"],
            "password_file": str(directory / "couch_password"),
            "gather": polls["gather"],
            "poll": "3h",
        },
        "jobs": {"arguments": pilot, "poll": polls["jobs"]},
        "storage": {"poll": polls["storage"]},
        "proxy": {"minimum": "12h", "poll": "2h"},
        "sites.sara": {"results": f"{HOST}/results/sara", "archive": f"{ARCHIVE}/sara", "staging": "legacy"},
        "sites.juelich": {"results": f"{HOST}/results/juelich", "archive": f"{ARCHIVE}/juelich", "staging": "legacy"},
        "pools": {"staging-sara": 2},
    }
    for table, changed in script.config.items():
        values.setdefault(table, {}).update(changed)
    lines = []
    for table, entries in values.items():
        lines.append(f"[{table}]")
        lines.extend(f"{key} = {json.dumps(value)}" for key, value in entries.items())
    path = directory / "aglowd.toml"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
