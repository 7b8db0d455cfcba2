"""The text of `glite-wms-job-status` (EMI-3 UI 3.5), as recorded from the real program: see its layout there."""

from __future__ import annotations

import time

from aglowd.sim.jobs import EXIT_NOT_0, SUCCESS, Job, Node

LINE = "=" * 74
BANNER = "======================= glite-wms-job-status Success ====================="
DESTINATION = "creamce.gina.sara.nl:8443/cream-pbs-medium"


def asctime(t: float) -> str:
    """World time as the tools print it, with the zone's name behind."""
    return time.strftime("%a %b %e %H:%M:%S %Y UTC", time.gmtime(t))


def status_block(job: Job, node: Node | None, t: float, *, verbosity: int, nodes: bool) -> str:
    """One job's block: a parent with its nodes, or, when `node` is given, that node alone."""
    head = f"\n{BANNER}\nBOOKKEEPING INFORMATION:\n\n"
    if node is not None or not job.is_compound:
        lines = _node_lines(job, node or job.nodes[0], t, verbosity)
        return head + "".join(f"{line}\n" for line in lines) + f"{LINE}\n\n"
    head += "".join(f"{line}\n" for line in _parent_lines(job, t, verbosity))
    if not nodes:
        return f"{head}{LINE}\n\n"
    of = f"{job.id}:\n\n" if verbosity >= 2 else "\n"
    indented = ["".join(f"    {line}\n" for line in _node_lines(job, part, t, verbosity)) for part in job.nodes]
    if verbosity == 0:
        return f"{head}- Nodes information for: {of}{''.join(indented)}{LINE}\n\n"
    between = f"{LINE}\n    \n"
    return f"{head}{LINE}\n\n- Nodes information for: {of}{between.join(indented)}{between}"


def unknown_block(job_id: str) -> str:
    return (
        f"*** Warning: Unable to retrieve the status for: {job_id}\n\n"
        "No such file or directory - no matching jobs found\n\n\n"
    )


def _parent_lines(job: Job, t: float, verbosity: int) -> list[str]:
    state = job.status(t)
    exit_code = 0 if state == SUCCESS else None
    reason = {"Aborted": "Standard DAG failure", "Cancelled": "Aborted by user",
              "Cleared": "user retrieved output sandbox"}.get(state)  # fmt: skip
    return _lines(job.id, state, verbosity, job.registered, exit_code=exit_code, reason=reason)


def _node_lines(job: Job, node: Node, t: float, verbosity: int) -> list[str]:
    state = "Cleared" if job.cleared and node.outcome else node.status(t)
    exit_code = node.exit_code if state in (SUCCESS, EXIT_NOT_0) else None
    reason = "user retrieved output sandbox" if state == "Cleared" else node.status_reason(t)
    destination = DESTINATION if node.has_destination(t) else None
    lines = _lines(node.id, state, verbosity, job.registered, exit_code=exit_code, reason=reason,
                   destination=destination)  # fmt: skip
    return [*lines, f"Parent Job:         {job.id}"] if verbosity >= 2 and job.is_compound else lines


def _lines(
    job_id: str,
    state: str,
    verbosity: int,
    submitted: float,
    *,
    exit_code: int | None,
    reason: str | None,
    destination: str | None = None,
) -> list[str]:
    """The fields, padded to column 20; those that are not known are absent, not empty."""
    lines = [f"Status info for the Job : {job_id}", f"Current Status:     {state}"]
    if verbosity == 0:
        return lines
    optional = {"Exit code:": exit_code, "Status Reason:": reason, "Destination:": destination}
    lines += [f"{name:<20}{value}" for name, value in optional.items() if value is not None]
    return [*lines, f"Submitted:          {asctime(submitted)}"]
