"""The jobs that the simulated batch systems know, and their states in the words of gLite's bookkeeping.

A parametric job is a parent with nodes; a simple job is a parent that is its own only node. Pilots move nodes to
Running and to their end; the states before that follow from the time since the start. Each system says it in its own words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from aglowd.sim.jdl import Attributes, list_parameters
from aglowd.sim.world import MINUTE_S, World, digest

LB = "https://wms2.grid.sara.nl:9000/"
_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"
QUEUE_S = (5 * MINUTE_S, 60 * MINUTE_S)

SUCCESS = "Done(Success)"
EXIT_NOT_0 = "Done(Exit Code !=0)"
ABORTED = "Aborted"
CANCELLED = "Cancelled"


@dataclass
class Node:
    """One job that runs somewhere; times are world seconds, None until it came to that."""

    id: str
    name: str
    arguments: str
    queue_s: float
    started: float | None = None
    running: float | None = None
    outcome: str | None = None
    exit_code: int | None = None
    reason: str | None = None
    cancelled: float | None = None

    def status(self, t: float) -> str:
        if self.outcome is not None:
            return self.outcome
        if self.started is None:
            return "Submitted"
        if self.running is not None:
            return "Running"
        waited = (t - self.started) / self.queue_s
        return "Waiting" if waited < 0.1 else "Ready" if waited < 0.2 else "Scheduled"

    def has_destination(self, t: float) -> bool:
        return self.started is not None and self.status(t) not in ("Submitted", "Waiting")

    def status_reason(self, t: float) -> str | None:
        if self.outcome is not None:
            return self.reason
        return "unavailable" if self.has_destination(t) else None


@dataclass
class Job:
    """What was submitted: its nodes, its sandbox, and the tags by which it can be found again."""

    id: str
    attributes: Attributes
    sandbox: dict[str, bytes]
    tags: dict[str, str]
    nodes: tuple[Node, ...]
    registered: float
    system: str = "glite"
    started: float | None = None
    cleared: bool = False
    seen_end: bool = field(default=False, repr=False)

    @property
    def is_compound(self) -> bool:
        return self.nodes[0].id != self.id

    def status(self, t: float) -> str:
        """The parent's state: it waits and runs with its nodes, and is Done when one of them at least succeeded."""
        if self.cleared:
            return "Cleared"
        if not self.is_compound:
            return self.nodes[0].status(t)
        if self.started is None:
            return "Submitted"
        outcomes = {node.outcome for node in self.nodes}
        if None in outcomes:
            return "Running" if any(node.running or node.outcome for node in self.nodes) else "Waiting"
        if outcomes == {CANCELLED}:
            return CANCELLED
        return SUCCESS if SUCCESS in outcomes else ABORTED


class JobBoard:
    """All jobs, by the id of the parent."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._jobs: dict[str, Job] = {}
        self._count = 0
        self.launch: Callable[[Job, Node], None] = lambda job, node: None
        self.stop: Callable[[Node], None] = lambda node: None
        """Both are set by whoever runs the nodes (the pilots)."""

    def __iter__(self) -> Iterator[Job]:
        return iter(self._jobs.values())

    def find(self, job_id: str) -> Job | None:
        return self._jobs.get(job_id)

    def find_node(self, job_id: str) -> tuple[Job, Node] | None:
        for job in self._jobs.values():
            for node in job.nodes:
                if node.id == job_id:
                    return job, node
        return None

    def register(
        self,
        attributes: Attributes,
        sandbox: dict[str, bytes],
        *,
        system: str = "glite",
        new_id: Callable[[], str] | None = None,
    ) -> Job:
        """Give the job its ids; nothing runs yet."""
        parent = (new_id or self._new_id)()
        arguments = str(attributes.get("arguments", ""))
        tags = attributes.get("usertags")
        parameters = list_parameters(attributes)
        nodes = [
            self._node((new_id or self._new_id)(), f"gsj_{at}", arguments.replace("_PARAM_", value))
            for at, value in enumerate(parameters or ())
        ] or [self._node(parent, "", arguments)]
        texts = {str(name): str(value) for name, value in tags.items()} if isinstance(tags, dict) else {}
        job = Job(parent, attributes, sandbox, texts, tuple(nodes), self._world.now(), system)
        self._jobs[parent] = job
        return job

    def start(self, job: Job) -> None:
        """Let the nodes queue; each runs when its time and a slot have come."""
        self._world.note(job.system, "job_started", "world", job=job.id, tags=job.tags, nodes=len(job.nodes))
        job.started = self._world.now()
        for node in job.nodes:
            node.started = job.started
            self.launch(job, node)

    def cancel(self, job: Job) -> None:
        """Ask for the job's end; nodes that did not end before become Cancelled."""
        for node in job.nodes:
            if node.outcome is None:
                self.end(job, node, CANCELLED, reason="Aborted by user")
                self.stop(node)

    def end(self, job: Job, node: Node, outcome: str, exit_code: int | None = None, reason: str | None = None) -> None:
        """Record how a node ended; only the first end counts."""
        if node.outcome is not None:
            return
        node.outcome, node.exit_code = outcome, exit_code
        node.reason = reason or {SUCCESS: "Job Terminated Successfully", EXIT_NOT_0: "Warning: job exit code != 0"}.get(
            outcome, "hit job shallow retry count (3)"
        )
        self._world.note(
            job.system, "node_ended", "world", job=job.id, node=node.id, outcome=outcome, exit_code=exit_code
        )
        if all(other.outcome is not None for other in job.nodes) and not job.seen_end:
            job.seen_end = True
            self._world.note(job.system, "job_ended", "world", job=job.id, outcome=job.status(self._world.now()))

    def _node(self, node_id: str, name: str, arguments: str) -> Node:
        return Node(node_id, name, arguments, self._world.between(*QUEUE_S, "queue", node_id))

    def _new_id(self) -> str:
        self._count += 1
        raw = digest(self._world.seed, "job", self._count, size_bytes=22)
        return LB + "".join(_ALPHABET[byte % 64] for byte in raw)
