"""The `dirac-wms-*` executables: submit, status of many at once or of a group, kill, output, and who one is.

Their words and exit codes are those of the real tools' source (DIRAC 8). Each of several jobs that one description makes
is a job of its own, with a number for a name.
"""

from __future__ import annotations

import itertools
from typing import Any

from aglowd.sim.jdl import Attributes, JdlError, parse_jdl
from aglowd.sim.jobs import ABORTED, CANCELLED, EXIT_NOT_0, SUCCESS, Job, JobBoard
from aglowd.sim.proxy import SUBJECT, Proxy
from aglowd.sim.sandbox import read_sandbox
from aglowd.sim.tools import Answer, Call, Command, parse
from aglowd.sim.world import World

SYSTEM = "dirac"
FIRST_ID = 1001
MAX_PARAMETRIC_JOBS = 100
OWNER = "testuser"
SITE = "GRID.SURF.nl"
WORDS = {
    "Submitted": ("Received", "Job accepted"),
    "Waiting": ("Checking", "JobScheduling"),
    "Ready": ("Waiting", "Pilot Agent Submission"),
    "Scheduled": ("Matched", "Assigned"),
    "Running": ("Running", "Application"),
    SUCCESS: ("Done", "Execution Complete"),
    EXIT_NOT_0: ("Failed", "Application Finished With Errors"),
    ABORTED: ("Failed", "Job stalled: pilot not running"),
    CANCELLED: ("Killed", "Marked for termination"),
}
"""The board's word → status and minor status."""
WRONG_JDL = "Invalid JDL ( 1501 : {})"
NO_OUTPUT = (
    "No Output sandbox found for job {}. Possible causes are: the job does not exist, no sandbox was registered or you do "
    "not have permission to access it."
)
TRACEBACK = (
    "Traceback (most recent call last):\n  File \"dirac-wms-job-status\", line 8, in <module>\nKeyError: 'Value'\n"
)


class Dirac:
    """The executables over one server."""

    def __init__(self, world: World, board: JobBoard, proxy: Proxy) -> None:
        self._world = world
        self._board = board
        self._proxy = proxy
        self._ids = itertools.count(FIRST_ID)

    def commands(self) -> dict[str, Command]:
        return {
            "dirac-wms-job-submit": self.submit,
            "dirac-wms-job-status": self.status,
            "dirac-wms-job-kill": self.kill,
            "dirac-wms-job-get-output": self.output,
            "dirac-wms-select-jobs": self.select,
            "dirac-proxy-info": self.info,
        }

    async def submit(self, call: Call) -> Answer:
        """Submit each of the JDLs; what was wrong with some is told at the end."""
        options = parse(call.argv, "", "-f|--File -r|--UseJobRepo")
        if not options.rest:
            return _usage("dirac-wms-job-submit [options] ... JDL ...")
        said, errors = "", ""
        for name in options.rest:
            made = self._refusal(call) or await self._submit(call, name)
            if isinstance(made, str):
                self._world.note(SYSTEM, "submit", jdl_file=name, result=f"refused: {made}")
                said += f"Job submission failure {made}\n"
                errors += f"ERROR {name}: {made}\n"
            else:
                said += f"JobID = {made}\n"
                ids = made if isinstance(made, list) else [made]
                if "--File" in options.values:
                    lines = "".join(f"{job}\n" for job in ids).encode()
                    await call.write(options.values["--File"], lines, append=True)
        return Answer(said + errors, rc=2 if errors else 0)

    async def _submit(self, call: Call, name: str) -> int | list[int] | str:
        """The number of the new job, the numbers of several, or why there are none."""
        text = ((await call.read(name)) or name.encode()).decode("utf-8", "replace")
        try:
            attributes = parse_jdl(text)
        except JdlError:
            return WRONG_JDL.format("Invalid job JDL")
        sandbox = await read_sandbox(call, name, attributes)
        if isinstance(sandbox, str):
            return WRONG_JDL.format("Input Sandbox is not valid")
        count = attributes.pop("parameters", None)
        values = count if isinstance(count, list) else [1] * (count or 1)
        if len(values) > MAX_PARAMETRIC_JOBS:
            return WRONG_JDL.format(f"Number of parametric jobs exceeds the limit of {MAX_PARAMETRIC_JOBS}")
        jobs = [
            self._board.register(_numbered(attributes, at, len(values)), sandbox, system=SYSTEM, new_id=self._new_id)
            for at in range(len(values))
        ]
        ids = [int(job.id) for job in jobs]
        self._world.note(
            SYSTEM, "submit", jdl=text, tags=jobs[0].tags, nodes=len(jobs), sandbox=sorted(sandbox), result=ids
        )
        for job in jobs:
            self._board.start(job)
        return ids if count is not None else ids[0]

    def _new_id(self) -> str:
        return str(next(self._ids))

    async def status(self, call: Call) -> Answer:
        """A line for each job that the server knows, in the order of the server."""
        options = parse(call.argv, "", "-f|--File -g|--JobGroup")
        refused = self._refusal(call)
        wanted = [word for argument in options.rest for word in argument.split(",")]
        if "--File" in options.values:
            wanted += ((await call.read(options.values["--File"])) or b"").decode().split()
        if "--JobGroup" in options.values:
            if refused:
                return Answer(f"{refused}\n", TRACEBACK, 1)
            group = options.values["--JobGroup"]
            wanted += [job.id for job in self._jobs() if job.tags.get("jobgroup") == group]
            if not wanted:
                self._world.note(SYSTEM, "status", group=group, known=0)
                logged = f"No jobs selected with date '2026-01-01' for conditions: {{'JobGroup': '{group}'}}\n"
                return Answer(f"{logged}Error: No jobs selected\n", rc=255)
        if not wanted:
            return _usage("dirac-wms-job-status [options] ... JobID ...")
        if refused or not all(word.isdigit() for word in wanted):
            return Answer(f"ERROR: {refused or 'Expected (list of) integer or string for existing jobID'}\n", rc=2)
        asked = set(wanted)
        known = [job for job in self._jobs() if job.id in asked]
        self._world.note(SYSTEM, "status", ids=len(wanted), known=len(known))
        return Answer("".join(self._line(job) for job in known))

    def _line(self, job: Job) -> str:
        status, minor = WORDS[job.status(self._world.now())]
        node = job.nodes[0]
        site = SITE if node.running is not None else "ANY"
        fields = {"Status": status, "MinorStatus": minor, "ApplicationStatus": "Unknown", "Site": site}
        order = sorted(fields, key=lambda name: self._world.draw("the order of fields", job.id, name))
        return f"JobID={job.id} " + "".join(f"{name}={fields[name]}; " for name in order) + "\n"

    async def kill(self, call: Call) -> Answer:
        """End the jobs that have not ended; if that is none, it is told as an error."""
        options = parse(call.argv, "", "")
        wanted = [word for argument in options.rest for word in argument.split(",")]
        if not wanted:
            return _usage("dirac-wms-job-kill [options] ... JobID ...")
        if refused := self._refusal(call):
            return Answer(f"ERROR {refused}\n", rc=2)
        live = [job for job in map(self._find, wanted) if job is not None and job.nodes[0].outcome is None]
        for job in live:
            self._board.cancel(job)
        ids = [job.id for job in live]
        self._world.note(SYSTEM, "cancel", jobs=wanted, result=ids)
        if not live:
            return Answer("ERROR Invalid job specification: []\n", rc=2)
        return Answer(f"Killed jobs {','.join(ids)}\n")

    async def output(self, call: Call) -> Answer:
        """Fetch the output sandbox into a directory with the job's number; one that is there is left as it is."""
        options = parse(call.argv, "", "-D|--Dir -f|--File -g|--JobGroup")
        said, errors = "", ""
        for job_id in options.rest:
            place = f"{call.path(options.values.get('--Dir', ''))}/{job_id}".replace("//", "/")
            if await call.read(f"{place}/stdout.txt") is not None:
                continue
            job = self._find(job_id)
            has_output = job is not None and job.nodes[0].outcome in (SUCCESS, EXIT_NOT_0)
            refused = self._refusal(call) or ("" if has_output else NO_OUTPUT.format(job_id))
            self._world.note(SYSTEM, "output", job=job_id, result=refused or "retrieved")
            if refused:
                errors += f"ERROR {job_id}: {refused}\n"
                continue
            await call.make_directory(place)
            await call.write(f"{place}/stdout.txt", b"no token is left\n")
            await call.write(f"{place}/stderr.txt", b"")
            said += f"Job output sandbox retrieved in {place}/\n"
        return Answer(said + errors, rc=2 if errors else 0)

    async def select(self, call: Call) -> Answer:
        """The numbers of the jobs of an owner."""
        options = parse(call.argv, "", "--Owner --Date --Maximum --Status --JobGroup")
        conditions = ", ".join(f"{name[2:]} = {value}" for name, value in options.values.items())
        if refused := self._refusal(call):
            return Answer(f"Can't select jobs:  {refused}\nNo jobs were selected with conditions: {conditions}\n")
        ids = [job.id for job in self._jobs()] if options.values.get("--Owner", OWNER) == OWNER else []
        self._world.note(SYSTEM, "select", argv=call.argv, result=len(ids))
        if not ids:
            return Answer(f"No jobs were selected with conditions: {conditions}\n")
        return Answer(f"==> Selected {len(ids)} jobs with conditions: {conditions}\n{','.join(ids)}\n")

    async def info(self, call: Call) -> Answer:
        """Whose proxy it is, and for how long."""
        left = self._proxy.find_timeleft(call.proxy)
        if left is None:
            return Answer("Can't find any proxy\n", rc=1)
        timeleft = f"{left // 3600:02d}:{left // 60 % 60:02d}:{left % 60:02d}"
        fields = {
            "subject": f"{SUBJECT}/CN=1457416527", "issuer": SUBJECT, "identity": SUBJECT, "timeleft": timeleft,
            "DIRAC group": "lofar_user", "path": call.proxy or str(self._proxy.path), "username": OWNER,
            "properties": "NormalUser",
        }  # fmt: skip
        return Answer("".join(f"{name:<13}: {value}\n" for name, value in fields.items()))

    def _jobs(self) -> list[Job]:
        return [job for job in self._board if job.system == SYSTEM]

    def _find(self, job_id: str) -> Job | None:
        job = self._board.find(job_id)
        return job if job is not None and job.system == SYSTEM else None

    def _refusal(self, call: Call) -> str:
        """The tools look at the proxy before they contact anything."""
        left = self._proxy.find_timeleft(call.proxy)
        if left is None:
            return "No proxy found"
        path = call.proxy or self._proxy.path
        return f"PEM file {path} has expired, not valid after 2026-01-01 00:00:00" if left == 0 else ""


def _numbered(attributes: Attributes, at: int, count: int) -> Attributes:
    """The description of one of several jobs. What tells whose it is names each apart from its sisters."""
    number = str(at).zfill(len(str(count - 1)))
    one: dict[str, Any] = {
        name: value.replace("%n", number) if isinstance(value, str) else value for name, value in attributes.items()
    }
    name = str(one.get("jobname", "Unknown"))
    key = name if count == 1 else f"{name}/{number}"
    return one | {"usertags": {"aglowd_key": key, "jobgroup": str(one.get("jobgroup", "00000000"))}}


def _usage(text: str) -> Answer:
    return Answer(f"\nUsage:\n  {text}\n", rc=1)
