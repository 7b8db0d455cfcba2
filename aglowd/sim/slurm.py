"""A Slurm of one's own, for the demo and the tests: Debian's real daemons on one node, on loopback, for as long as it is wanted.

It runs as whoever starts it and needs no root, no cgroups and nothing that is configured on this host. What must stay true:
its ports and sockets are private, only 127.0.0.1 hears it, and when it ends its jobs and daemons have ended.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import secrets
import shutil
import signal
import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path

PACKAGES = {"munged": "munge", "sbatch": "slurm-client", "slurmctld": "slurmctld", "slurmd": "slurmd"}
"""Program → the package of Debian that holds it; slurm-wlm brings all but munge."""
START_REAL_S = 20.0
CLIENT_REAL_S = 5.0
STOP_REAL_S = 10.0
LOOK_REAL_S = 0.05
KILL_WAIT_S = 5
"""So long a job has between SIGTERM and SIGKILL."""

_CONFIG = """\
ClusterName=aglowd
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={munge}
SlurmctldPort={controller_port}
SlurmdPort={node_port}
# Else both daemons listen on all addresses.
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmctldPidFile={home}/slurmctld.pid
SlurmdPidFile={home}/slurmd.pid
SlurmctldLogFile={home}/slurmctld.log
SlurmdLogFile={home}/slurmd.log
SlurmdSpoolDir={home}/node
StateSaveLocation={home}/state
# No cgroups.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
MpiDefault=none
MailProg=/bin/true
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=0,bf_interval=1,sched_min_interval=0
# The node may claim more processors than the host has: pilots mostly wait.
SlurmdParameters=config_overrides
ReturnToService=2
KillWait={kill_wait_s}
MinJobAge={min_job_age_s}
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=1000 State=UNKNOWN
PartitionName=debug Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


class SlurmMissing(Exception):
    """A program of Slurm is not installed; the text names its package."""


@asynccontextmanager
async def private_slurm(
    directory: Path, *, cpus: int = 64, min_job_age_s: int = 300
) -> AsyncIterator[Mapping[str, str]]:
    """Slurm with its files in `directory`, from when it takes jobs; what its clients need in their environment.

    `cpus` one-core jobs run at once; what has ended is shown for `min_job_age_s` real seconds at least. SlurmMissing if it is
    not installed, RuntimeError with the daemons' last words if it does not start.
    """
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
    for program, package in PACKAGES.items():
        if shutil.which(program, path=path) is None:
            raise SlurmMissing(f"{program} is not installed; Debian has it in {package} (packages slurm-wlm and munge)")
    async with AsyncExitStack() as stack:
        # A Unix socket's path may have 107 bytes, and the directory of a test is often longer.
        sockets = Path(tempfile.mkdtemp(prefix="aglowd-slurm-"))
        stack.callback(shutil.rmtree, sockets, ignore_errors=True)
        _write_files(directory, sockets, cpus, min_job_age_s)
        env = {"PATH": path, "SLURM_CONF": f"{directory}/slurm.conf"}
        home = [f"--key-file={directory}/munge.key", f"--seed-file={directory}/munge.seed"]
        home += [f"--log-file={directory}/munged.log", f"--pid-file={directory}/munged.pid"]
        munged = ["munged", "-F", "-f", f"--socket={sockets}/munge", *home]
        await stack.enter_async_context(_running(munged, env, directory))
        await _wait(partial(asyncio.to_thread, (sockets / "munge").exists), directory)
        await stack.enter_async_context(_running(["slurmd", "-D", "-N", _host()], env, directory))
        controller = await stack.enter_async_context(_running(["slurmctld", "-D", "-i"], env, directory))
        await _wait(partial(_says, ["sinfo", "-h", "-o", "%T"], "idle", env), directory)
        stack.push_async_callback(_cancel_all, controller, env)
        yield env


def _host() -> str:
    return socket.gethostname().partition(".")[0]


def _write_files(directory: Path, sockets: Path, cpus: int, min_job_age_s: int) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name in ("node", "state"):
        (directory / name).mkdir(exist_ok=True)
    key = directory / "munge.key"
    key.unlink(missing_ok=True)
    with open(os.open(key, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400), "wb") as file:
        file.write(secrets.token_bytes(1024))
    (directory / "cgroup.conf").touch()  # Without it slurmd complains.
    sockets.chmod(0o755)
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        ports = one.getsockname()[1], other.getsockname()[1]
    config = _CONFIG.format(
        host=_host(),
        user=pwd.getpwuid(os.getuid()).pw_name,
        munge=sockets / "munge",
        controller_port=ports[0],
        node_port=ports[1],
        home=directory,
        kill_wait_s=KILL_WAIT_S,
        min_job_age_s=min_job_age_s,
        cpus=cpus,
    )
    (directory / "slurm.conf").write_text(config)


@asynccontextmanager
async def _running(
    argv: list[str], env: Mapping[str, str], directory: Path
) -> AsyncIterator[asyncio.subprocess.Process]:
    """The daemon, in the foreground of a session of its own."""
    with open(directory / f"{argv[0]}.said", "wb") as said:  # noqa: ASYNC230 # A new file on this host.
        process = await asyncio.create_subprocess_exec(
            *argv,
            env=env,
            cwd=directory,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                process.send_signal(number)
            with suppress(TimeoutError):
                async with asyncio.timeout(STOP_REAL_S):
                    await process.wait()
                    break


async def _wait(is_so: Callable[[], Awaitable[bool]], directory: Path) -> None:
    try:
        async with asyncio.timeout(START_REAL_S):
            await _until(is_so)
    except TimeoutError as error:
        words = await asyncio.to_thread(_last_words, directory)
        raise RuntimeError(f"Slurm did not start: {words}") from error


async def _until(is_so: Callable[[], Awaitable[bool]]) -> None:
    while True:
        if await is_so():
            return
        await asyncio.sleep(LOOK_REAL_S)


def _last_words(directory: Path) -> str:
    """The ends of all that its daemons said and logged."""
    files = sorted((*directory.glob("*.log"), *directory.glob("*.said")))
    return "\n".join(f"{file.name}: {file.read_text(errors='replace')[-1000:]}" for file in files)


async def _says(argv: list[str], word: str, env: Mapping[str, str]) -> bool:
    """Whether the client prints exactly that; one that takes too long is killed."""
    process = await asyncio.create_subprocess_exec(
        *argv,
        env=env,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(CLIENT_REAL_S):
            said, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        return False
    return process.returncode == 0 and said.decode(errors="replace").strip() == word


async def _cancel_all(controller: asyncio.subprocess.Process, env: Mapping[str, str]) -> None:
    """End all jobs, which would outlive the daemons. A controller that has gone cannot be asked."""
    if controller.returncode is not None:
        return
    await _says(["scancel", f"--user={os.getuid()}"], "", env)
    with suppress(TimeoutError):
        async with asyncio.timeout(STOP_REAL_S):
            await _until(partial(_says, ["squeue", "-h"], "", env))
