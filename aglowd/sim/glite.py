"""The `glite-wms-*` executables: submit in one step or in two, status of many at once, cancel, output, delegation.

Their words, banners and exit codes are the real tools' as far as these are known (facts: EMI-3 UI and WMProxy).
"""

from __future__ import annotations

import json
import posixpath

from aglowd.sim.glitestatus import status_block, unknown_block
from aglowd.sim.jdl import JdlError, parse_jdl
from aglowd.sim.jobs import EXIT_NOT_0, LB, SUCCESS, Job, JobBoard
from aglowd.sim.proxy import Proxy
from aglowd.sim.sandbox import read_sandbox
from aglowd.sim.tools import Answer, Call, Command, parse
from aglowd.sim.world import World

ENDPOINT = "https://wms2.grid.sara.nl:7443/glite_wms_wmproxy_server"
IDS_HEADER = "###Submitted Job Ids###"
LINE = "=" * 74
QUIET = "--noint --debug --json --nomsg --pretty-print --nodisp --version"
NO_DELEGATION = """the delegation identifier is missing. Please, use one of these options:
-d, --delegationid <id_string>    to use a proxy delegated before
-a, --autm-delegation             to delegate one automatically
or the attribute DelegationId of the configuration file"""


def failure(header: str, text: str, rc: int = 1) -> Answer:
    """How the C++ tools fail: on stderr, between blank lines."""
    return Answer(stderr=f"\nError - {header}\n{text}\n\n", rc=rc)


def python_failure(code: str, text: str) -> Answer:
    """How the Python tool fails."""
    return Answer(stderr=f"**** Error: {code} ****  \n{text}\n\n", rc=1)


class Glite:
    """The executables over one WMS and its bookkeeping."""

    def __init__(self, world: World, board: JobBoard, proxy: Proxy) -> None:
        self._world = world
        self._board = board
        self._proxy = proxy
        self._delegations: set[str] = set()

    def commands(self) -> dict[str, Command]:
        return {
            "glite-wms-job-submit": self.submit,
            "glite-wms-job-status": self.status,
            "glite-wms-job-cancel": self.cancel,
            "glite-wms-job-output": self.output,
            "glite-wms-job-delegate-proxy": self.delegate,
        }

    # --- submit

    async def submit(self, call: Call) -> Answer:
        """Submit a JDL, or only register it, or start what was registered."""
        options = parse(
            call.argv,
            f"-a|--autm-delegation --register-only --transfer-files {QUIET}",
            "-d|--delegationid -e|--endpoint -o|--output --start -c|--config --vo --logfile -r|--resource",
        )
        refused = self._refused(call)
        if refused is None and "--start" in options.values:
            return self._start(options.values["--start"], options.flags)
        if refused is None and not ("--autm-delegation" in options.flags or "--delegationid" in options.values):
            refused = failure("Input Option Error", NO_DELEGATION)
        delegation = options.values.get("--delegationid")
        if refused is None and delegation is not None and delegation not in self._delegations:
            refused = failure("WMProxy Server Error", f"No delegated proxy with the identifier: {delegation}")
        if refused is None and not options.rest:
            refused = failure("Input Option Error", "no JDL file was given")
        if refused is not None:
            self._world.note("glite", "submit", argv=call.argv, result="refused")
            return refused
        return await self._register(call, options.rest[0], options.flags, options.values.get("--output"))

    async def _register(self, call: Call, name: str, flags: frozenset[str], id_file: str | None) -> Answer:
        text = await call.read(name)
        if text is None:
            return self._bad_jdl(name, f"Unable to open the JDL file: {name}")
        try:
            attributes = parse_jdl(text.decode("utf-8", "replace"))
        except JdlError as error:
            return self._bad_jdl(name, str(error))
        sandbox = await read_sandbox(call, name, attributes)
        if isinstance(sandbox, str):
            return self._bad_jdl(name, f"the input sandbox file does not exist: {sandbox}")
        job = self._board.register(attributes, sandbox)
        begun = "--register-only" not in flags
        self._world.note(
            "glite", "submit", jdl=text.decode("utf-8", "replace"), tags=job.tags, nodes=len(job.nodes),
            sandbox=sorted(sandbox), registered_only=not begun, result=job.id,
        )  # fmt: skip
        if begun:
            self._board.start(job)
        saved = ""
        if id_file is not None:
            there = await call.read(id_file)
            await call.write(id_file, f"{'' if there else IDS_HEADER + chr(10)}{job.id}\n".encode(), append=True)
            saved = f"\nThe job identifier has been saved in the following file:\n{call.path(id_file)}\n"
        return _submitted(job, "submitted" if begun else "registered", flags, saved)

    def _bad_jdl(self, name: str, reason: str) -> Answer:
        self._world.note("glite", "submit", jdl_file=name, result=f"refused: {reason}")
        return failure("Operation failed", reason)

    def _start(self, job_id: str, flags: frozenset[str]) -> Answer:
        job = self._board.find(job_id)
        result = "unknown" if job is None else "already started" if job.started is not None else "started"
        self._world.note("glite", "start", job=job_id, tags=job.tags if job else {}, result=result)
        if job is None:
            return failure("WMProxy Server Error", f"The job has not been found: {job_id}\nMethod: jobStart")
        if job.started is not None:
            return failure("WMProxy Server Error", f"The job has been already started: {job_id}\nMethod: jobStart")
        self._board.start(job)
        return _submitted(job, "started", flags, "")

    # --- status

    async def status(self, call: Call) -> Answer:
        """Text for any number of jobs in one call, in the order asked."""
        options = parse(
            call.argv,
            f"--all --nonodes {QUIET}",
            "-i|--input -v|--verbosity -o|--output --user-tag --from --to -s|--status -e|--exclude -c|--config --vo "
            "--logfile",
        )
        noint = "--noint" in options.flags
        lead = "" if noint else "\n"
        if "--version" in options.flags:
            return Answer("\nJob Submission User Interface version  3.5.1\n")
        if (left := self._proxy.find_timeleft(call.proxy)) is None:
            return python_failure("UI_PROXY_NOT_FOUND", "Proxy certificate not found.")
        if left == 0:
            return python_failure("UI_PROXY_EXPIRED", "Proxy certificate validity expired.")
        ids = list(options.rest)
        if "--input" in options.values:
            name = options.values["--input"]
            text = await call.read(name)
            if text is None:
                return python_failure("UI_FILE_NOT_FOUND", f'Unable to find the file "{name}"')
            ids += _read_ids(text)
        if "--all" in options.flags or "--user-tag" in options.values:
            ids += self._search(options.values.get("--user-tag"))
            lead += f"Retrieving Information from LB server {LB.rstrip('/')}\n"
            lead += "Please wait: this operation could take some seconds.\n"
        elif not ids:
            return Answer(stderr="Usage: glite-wms-job-status  [options]  <job Id(s)>\n", rc=1)
        warnings, ids = _sift(ids)
        if not ids and warnings:
            warnings += "**** Error: UI_WRONG_JOBID_ALL ****  \nAll jobID are in wrong format\n"
            return Answer(stderr=warnings, rc=1)
        verbosity = int(options.values.get("--verbosity", 1))
        blocks, known = self._blocks(ids, verbosity, nodes="--nonodes" not in options.flags)
        self._world.note("glite", "status", ids=len(ids), known=known)
        rc = 0 if known == len(ids) and not warnings else 255 if known else 1
        tail = "\n" if ids and not known else ""
        if noint and rc:
            log = f"/tmp/glite-wms-job-status_0_{len(ids)}_{int(self._world.now())}.log"  # noqa: S108 - as the tool says
            tail += f"\n{' ' * 27}*** Log file created ***\n"
            tail += f"Possible Errors and Debug messages have been printed in the following file:\n{log}\n\n"
        return Answer(lead + blocks + tail, warnings, rc)

    def _blocks(self, ids: list[str], verbosity: int, *, nodes: bool) -> tuple[str, int]:
        now = self._world.now()
        said, known = [], 0
        for job_id in ids:
            found = self._find(job_id)
            if found is None:
                said.append(unknown_block(job_id))
                continue
            known += 1
            job, node_id = found
            node = next((part for part in job.nodes if part.id == node_id and job.is_compound), None)
            said.append(status_block(job, node, now, verbosity=verbosity, nodes=nodes))
        return "".join(said), known

    def _find(self, job_id: str) -> tuple[Job, str] | None:
        job = self._board.find(job_id)
        if job is not None:
            return job, ""
        found = self._board.find_node(job_id)
        return None if found is None else (found[0], job_id)

    def _search(self, tag: str | None) -> list[str]:
        name, _, value = (tag or "").partition("=")
        ours = [job for job in self._board if job.system == "glite"]
        return [job.id for job in ours if tag is None or job.tags.get(name.lower()) == value]

    # --- the others

    async def cancel(self, call: Call) -> Answer:
        """Ask for the end of jobs; it comes to those that have not ended yet."""
        options = parse(call.argv, QUIET, "-i|--input -o|--output -c|--config --logfile")
        ids = list(options.rest)
        if "--input" in options.values:
            ids += _read_ids(await call.read(options.values["--input"]) or b"")
        if "--noint" not in options.flags:
            return Answer("Are you sure you want to remove specified job(s) [y/n]y : n\nbye\n")
        now = self._world.now()
        done: list[str] = []
        refused = ""
        for job_id in ids:
            job = self._board.find(job_id)
            state = "unknown" if job is None else job.status(now)
            if job is None:
                refused += f"\nError - Unable to contact the bookkeeping for {job_id}: No such file or directory\n\n"
            elif state in (SUCCESS, EXIT_NOT_0, "Aborted", "Cancelled", "Cleared"):
                refused += f"\nWarning - Cancel not allowed\n{job_id}: Current Job Status is {state}\n\n"
            else:
                self._board.cancel(job)
                done.append(job_id)
        self._world.note("glite", "cancel", jobs=ids, result=done)
        if not done:
            return Answer(stderr=f"{refused}\nError - Operation Failed\nUnable to cancel any job\n\n", rc=1)
        listed = "".join(f"- {job_id}\n" for job_id in done)
        banner = " glite-wms-job-cancel Success ".center(88, "=")
        text = "The cancellation request has been successfully submitted for the following job(s):"
        return Answer(f"\n{banner}\n\n{text}\n\n{listed}\n{'=' * 88}\n\n", refused)

    async def output(self, call: Call) -> Answer:
        """Fetch the output sandbox, which clears the job."""
        options = parse(
            call.argv, f"--nopurge --nosubdir --list-only {QUIET}", "--dir -i|--input -o|--output --logfile"
        )
        job = self._board.find(options.rest[0]) if options.rest else None
        state = "unknown" if job is None else job.status(self._world.now())
        self._world.note("glite", "output", job=options.rest[:1], result=state)
        if job is None or state not in (SUCCESS, EXIT_NOT_0, "Aborted"):
            texts = {"Cleared": "Output files already retrieved", "Cancelled": "The Job has been cancelled"}
            return failure("Operation failed", texts.get(state, "Output not yet ready"))
        job.cleared = "--nopurge" not in options.flags
        place = f"{call.path(options.values.get('--dir', '/tmp'))}/user_{posixpath.basename(job.id)}"  # noqa: S108 - as the tool
        await call.make_directory(place)
        await call.write(f"{place}/stdout.txt", b"no token is left\n")
        line = "=" * 80
        said = f"\n{line}\n\n\t\t\tJOB GET OUTPUT OUTCOME\n\nOutput sandbox files for the job:\n{job.id}\n"
        return Answer(f"{said}have been successfully retrieved and stored in the directory:\n{place}\n\n{line}\n\n")

    async def delegate(self, call: Call) -> Answer:
        """Give the WMS a proxy under a name that submissions use."""
        options = parse(
            call.argv, f"-a|--autm-delegation {QUIET}", "-d|--delegationid -e|--endpoint -c|--config -o|--output"
        )
        name = options.values.get("--delegationid", "")
        refused = self._refused(call)
        self._world.note("glite", "delegate", delegation=name, result="refused" if refused else "delegated")
        if refused is not None:
            return refused
        if not name:
            return failure("Input Option Error", NO_DELEGATION)
        self._delegations.add(name)
        banner = " glite-wms-job-delegate-proxy Success ".center(74, "=")
        said = f"Your proxy has been successfully delegated to the WMProxy(s):\n{ENDPOINT}\nwith the delegation identifier: "
        return Answer(f"\nConnecting to the service {ENDPOINT}\n\n\n{banner}\n\n{said}{name}\n\n{LINE}\n\n")

    def _refused(self, call: Call) -> Answer | None:
        """The tools look at the proxy before they contact anything."""
        left = self._proxy.find_timeleft(call.proxy)
        if left is None:
            return failure("Proxy File Not Found", "No path to valid proxy file has been found")
        return failure("Proxy validity Error", "Your proxy credential has expired") if left == 0 else None


def _submitted(job: Job, verb: str, flags: frozenset[str], saved: str) -> Answer:
    if "--json" in flags:
        body: dict[str, object] = {"result": "success", "parent" if job.is_compound else "jobid": job.id}
        body["endpoint"] = ENDPOINT
        if job.is_compound:
            body["children"] = {node.name: node.id for node in job.nodes}
        return Answer(json.dumps(body) + "\n")
    if "--nomsg" in flags:
        return Answer(f"{job.id}\n")
    banner = " glite-wms-job-submit Success ".center(74, "=")
    said = f"The job has been successfully {verb} to the WMProxy\nYour job identifier is:\n\n{job.id}\n{saved}"
    return Answer(f"\nConnecting to the service {ENDPOINT}\n\n\n{banner}\n\n{said}\n{LINE}\n\n\n")


def _read_ids(data: bytes) -> list[str]:
    """The ids of an id file, without its header and comments."""
    lines = (line.strip() for line in data.decode("utf-8", "replace").splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def _sift(ids: list[str]) -> tuple[str, list[str]]:
    """The ids that are ids, each once, and what the tool has to say about the others."""
    warnings, good = "", []
    for job_id in ids:
        if not job_id.startswith("https://"):
            warnings += "**** Warning: UI_WRONG_JOBID_FORMAT ****  \n"
            warnings += f'The "{job_id}" jobID is not in a valid format\n\n'
        elif job_id in good:
            warnings += "**** Warning: UI_JOBID_REPEAT ****  \n"
            warnings += f'The jobID "{job_id}" has been already specified in the input list.\n'
            warnings += "The jobID will be taken into account only once.\n\n"
        else:
            good.append(job_id)
    return warnings, good
