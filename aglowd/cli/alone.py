"""The doctor without a daemon: what can be told from the configuration alone.

What must stay true: the state directory is looked at and not entered, so that nothing of it belongs to another user or is
changed while a daemon starts; what adapters keep goes to a directory that is gone afterwards.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from aglowd import log
from aglowd.clock import Clock
from aglowd.config import Config, load_config
from aglowd.credentials import Secrets
from aglowd.doctor import FAIL, OK, WARN, Check, is_well
from aglowd.pipeline import Pipeline
from aglowd.toml_file import ConfigError
from aglowd.wiring import build_doctor, build_world, load_pipelines


async def examine(path: Path, told: str) -> dict[str, Any]:
    """The daemon's answer to `aglowctl doctor`, as far as it can be given; `told`: why the daemon does not give it."""
    log.configure("console", "critical", sys.stderr)
    checks = [Check("aglowd", "process", WARN, told, "systemctl start aglowd")] if told else []
    try:
        config = load_config(path)
        secrets = Secrets(config)
        pipelines = load_pipelines(config.pipelines.directory, config.catalogue.pipeline, tuple(config.secrets))
    except ConfigError as error:
        checks += [Check("configuration", f"{one.file}:{one.line}", FAIL, one.what, one.hint) for one in error.problems]
    else:
        who = f"{path} and {len(pipelines)} pipelines are well; looked at by uid {os.geteuid()}"
        checks += [Check("configuration", path.name, OK, who), *await _examine(config, secrets, pipelines)]
    now = Clock().now()
    return {"schema": 1, "now": now, "ok": is_well(checks), "checks": msgspec.to_builtins(checks)}


async def _examine(config: Config, secrets: Secrets, pipelines: dict[str, Pipeline]) -> list[Check]:
    with tempfile.TemporaryDirectory(prefix="aglowd-doctor-") as directory:
        elsewhere = msgspec.structs.replace(config.daemon, state_dir=directory)
        clock = Clock(config.clock.rate, config.clock.origin)
        world, _ = build_world(msgspec.structs.replace(config, daemon=elsewhere), clock, secrets, "alone")
        try:
            return await build_doctor(config, world, secrets, pipelines).examine()
        finally:
            await world.http.close()
            await world.catalogue.close()
