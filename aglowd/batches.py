"""The batch systems as the configuration names them: one for each way in which some site runs pilots."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from aglowd.clock import Clock
from aglowd.config import BatchConfig, Config
from aglowd.durations import duration_s
from aglowd.grid.arc import Arc
from aglowd.grid.batch import Batch, Terms
from aglowd.grid.dirac import Dirac
from aglowd.grid.gate import Site
from aglowd.grid.glite import Glite
from aglowd.grid.http import Http
from aglowd.grid.local import Local
from aglowd.grid.nobody import Nobody
from aglowd.grid.proc import Processes
from aglowd.grid.slurm import Slurm
from aglowd.grid.tls import grid_cas
from aglowd.toml_file import ConfigError, Problem, read_text

TEMPLATES = {"glite": "glite.jdl", "dirac": "dirac.jdl", "slurm": "slurm.sh", "arc": "arc.xrsl"}
"""The system's template among those that come with aglowd; pilots on this host need none."""
SHIPPED = (
    Path(__file__).parent.parent / "etc" / "jobs",
    Path(sys.prefix) / "share" / "aglowd" / "jobs",
)


class Means:
    """What adapters work with, and where they keep their files."""

    def __init__(self, clock: Clock, http: Http, processes: Processes, state: Path, proxy: str, most: int) -> None:
        self.clock = clock
        self.http = http
        self.processes = processes
        self.state = state
        self.proxy = proxy
        self.most = most
        """Programs of one system at once: who does not answer leaves places to everybody else."""

    def under(self, proxy: str) -> Means:
        """The same means, with that grid proxy in the place of the common one."""
        if not proxy:
            return self
        processes = self.processes.with_environment(X509_USER_PROXY=proxy)
        return Means(self.clock, self.http, processes, self.state, proxy, self.most)


def build_batches(config: Config, means: Means, gates: dict[str, Site]) -> dict[str, Batch]:
    """Site → its batch system, "" → the common one. Sites that say the same share one, so that one call asks for all.

    ConfigError if a template cannot be read.
    """
    built: dict[BatchConfig, Batch] = {}
    found: dict[str, Batch] = {}
    common = BatchConfig(**{name: getattr(config.jobs, name) for name in BatchConfig.__struct_fields__})
    for site, wanted in {"": common, **{name: site.jobs for name, site in config.sites.items()}}.items():
        where = _where(wanted)
        if where not in built:
            name = wanted.system if wanted.system not in gates else f"{wanted.system}-{site}"
            gates[name] = Site(name, means.clock, concurrency=means.most)
            built[where] = SYSTEMS[wanted.system](wanted, _terms(wanted), means.under(wanted.proxy), gates[name])
        found[site] = built[where]
    return found


def _where(config: BatchConfig) -> BatchConfig:
    """Only what tells one system from another: what is submitted there may differ from site to site."""
    return BatchConfig(
        system=config.system,
        endpoint=config.endpoint,
        delegation=config.delegation,
        setup=config.setup,
        proxy=config.proxy,
        directory=config.directory,
        queue=config.queue,
        wall_time=config.wall_time,
        cpus=config.cpus,
        template=config.template,
        places=config.places,
    )


def _terms(config: BatchConfig) -> Terms:
    name = TEMPLATES.get(config.system, "")
    path = Path(config.template) if config.template else _shipped(name)
    try:
        text = read_text(path) if name or config.template else ""
    except (OSError, ValueError) as error:
        raise ConfigError(
            [Problem(str(path), 1, f"the template of job descriptions cannot be read: {error}")]
        ) from error
    return Terms(text, config.queue, duration_s(config.wall_time), config.cpus)


def _shipped(name: str) -> Path:
    return next((place / name for place in SHIPPED if (place / name).is_file()), SHIPPED[-1] / name)


def _glite(config: BatchConfig, terms: Terms, means: Means, gate: Site) -> Batch:
    return Glite(
        means.processes,
        gate,
        terms,
        endpoint=config.endpoint or None,
        delegation=config.delegation or None,
        work_dir=means.state / "work",
    )


def _slurm(config: BatchConfig, terms: Terms, means: Means, gate: Site) -> Batch:
    spool = Path(config.directory) if config.directory else means.state / "slurm"
    return Slurm(means.processes, gate, terms, spool=spool)


def _dirac(config: BatchConfig, terms: Terms, means: Means, gate: Site) -> Batch:
    return Dirac(means.processes, gate, terms, work_dir=means.state / "work", setup=config.setup)


def _arc(config: BatchConfig, terms: Terms, means: Means, gate: Site) -> Batch:
    proxy = means.proxy or os.environ.get("X509_USER_PROXY") or f"/tmp/x509up_u{os.getuid()}"  # noqa: S108 # by custom
    ca_dir = grid_cas()
    return Arc(means.http, gate, terms, config.endpoint, proxy=Path(proxy), ca_dir=ca_dir if ca_dir.is_dir() else None)


def _local(config: BatchConfig, terms: Terms, means: Means, gate: Site) -> Batch:
    directory = Path(config.directory) if config.directory else means.state / "pilots"
    return Local(means.processes, means.clock, terms, directory, most=config.places)


def _nobody(config: BatchConfig, terms: Terms, means: Means, gate: Site) -> Batch:
    return Nobody()


SYSTEMS: Mapping[str, Callable[[BatchConfig, Terms, Means, Site], Batch]] = {
    "glite": _glite,
    "slurm": _slurm,
    "dirac": _dirac,
    "arc": _arc,
    "local": _local,
    "none": _nobody,
}
"""How each system is built. A new one is an adapter in `grid/` and a line here."""
