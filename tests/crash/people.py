"""Who else is there while a daemon lives: an operator who gives his verdict, has a file staged, backs the daemon up and
settles its doubts, and a stranger with a job on the same grid.

The operator speaks through the control socket, as aglowctl does; a daemon that dies meanwhile is asked again.
"""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import msgspec

from tests.crash.scenario import FIELD, TARGET

TIMEOUT_REAL_S = 5.0
AGAIN_REAL_S = 0.4
"""Real seconds until the stranger submits another job if nobody took notice of the last one."""
JDL = """[
JobType = "Parametric"; Parameters = 10; ParameterStart = 0; ParameterStep = 1;
Executable = "/bin/sleep"; Arguments = "_PARAM_"; StdOutput = "out"; StdError = "err";
]
"""
VERDICTS = {"adopted": ("adopt", "0"), "retried": ("retry", ""), "forgotten": ("forget", "")}
"""Step of the pipeline → what the operator says of its effect."""


class _Connection(http.client.HTTPConnection):
    """HTTP over the daemon's Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("aglowd", timeout=TIMEOUT_REAL_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(TIMEOUT_REAL_S)
        self.sock.connect(str(self._path))


def is_settled(status: dict[str, Any]) -> bool:
    """Whether nothing moves by itself any more: then the daemon's own job has its place in the journal."""
    moving = {"ready", "waiting"} & status["steps"].keys() | {"planned", "open", "unknown"} & status["effects"].keys()
    return not moving and status["steps"].get("working", 0) > 0


class Asker:
    """Who speaks to the daemon. `is_content`: whether it may end, as far as this one is concerned."""

    is_content = True

    def __init__(self, state: Path) -> None:
        self._state = state

    def _ask(self, method: str, what: str, body: Any = None) -> Any:
        """The answer, or None when the daemon does not give any, or refuses."""
        connection = _Connection(self._state / "aglowd.sock")
        try:
            connection.request(method, f"/v1/{what}", None if body is None else msgspec.json.encode(body))
            reply = connection.getresponse()
            data = reply.read()
            return msgspec.json.decode(data) if reply.status == 200 else None
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()


class Steersman(Asker):
    """Holds everything and lets it go; has the configuration read anew; cancels the run while its files come, takes the field
    over where it stands, retries that run when it has failed; begins another one by hand, and forgets that.

    What is to be done next is read off the daemon's own answers, because one may be lost with a daemon that dies.
    """

    is_content = False

    def __init__(self, state: Path) -> None:
        super().__init__(state)
        self._held = self._let_go = self._reloaded = self._looked = False

    def look(self) -> None:
        """One look, and the one thing that is to be done next."""
        status, field = self._ask("GET", "status"), self._ask("GET", f"fields/{FIELD}")
        if status is None or field is None or not field["runs"]:
            return
        self._held |= bool(status["paused"])
        self._let_go |= self._held and not status["paused"]
        run = [one for one in field["runs"] if one["id"].startswith(f"{FIELD}-")][-1]
        stage = next(step for step in run["steps"] if step["step"] == "stage")
        if not self._held:
            self._ask("POST", "pause", {"everything": True, "reason": "wait"})
        elif not self._let_go:
            self._ask("POST", "resume", {"everything": True})
        elif not self._reloaded:
            self._reloaded = self._ask("POST", "reload", {"reason": "look"}) is not None
        elif run["state"] == "cancelled":
            self._ask("POST", "adopt", {"targets": [FIELD], "reason": "go on"})
        elif run["state"] == "failed":
            (self._state / "srm" / "go").touch()
            self._ask("POST", "retry", {"targets": [FIELD], "reason": "go on"})
        elif run["id"] == f"{FIELD}-1" and stage["state"] == "waiting" and "request" in stage["reason"]:
            self._ask("POST", "cancel", {"targets": [run["id"]], "reason": "wrong files"})
        elif len(field["runs"]) == 3:
            self._looked = True
            by_hand = next(one["id"] for one in field["runs"] if not one["id"].startswith(f"{FIELD}-"))
            self._ask("POST", "forget", {"runs": [by_hand], "reason": "seen"})
        elif run["state"] == "done" and not self._looked:
            params = {"path": str(self._state / "srm" / f"srm{TARGET}.txt"), "obsid": f"L{TARGET}"}
            self._ask("POST", "run", {"field": FIELD, "pipeline": "list", "params": params, "reason": "look"})
        self.is_content = self._looked and len(field["runs"]) == 2


class People(Asker):
    """Both of them; `look` is what they do each time they look at the screen."""

    def __init__(self, state: Path, ready: dict[str, Any], *, restores: bool, imports: bool = False) -> None:
        super().__init__(state)
        self._submit = [f"{ready['bin']}/glite-wms-job-submit", "--noint", "-a", "stranger.jdl"]
        self._proxy = ready["proxy"]
        self._backed_up = False
        self._staged = self._dismissed = restores
        """Who wants to restore a backup makes it as soon as something has begun, and does nothing else."""
        self._imports = imports
        """Whether the operator imports the field, and does nothing else."""
        self._submitted_at = 0.0
        self._reset = restores
        (state / "stranger.jdl").write_text(JDL, encoding="utf-8")

    def look(self) -> None:
        """One look: first who waits for a verdict gets it, the stranger is noticed and dismissed, then a file is staged, a backup made, the doubts are settled."""
        if self._imports:
            text = (self._state / "fields.csv").read_text(encoding="utf-8")
            # Whose answer was lost is told that the field is there already.
            catalogue = self._ask("GET", "catalogue")
            if catalogue is not None and not catalogue["fields"]:
                self._ask("POST", "catalogue/import", {"path": "fields.csv", "text": text})
            return
        answer, status = self._ask("GET", "doubt"), self._ask("GET", "status")
        if answer is None or status is None:
            return
        # Not before the scenario's own kill, behind which something is in doubt: the kills that are tried come after it.
        if answer["doubts"] and any(wait["kind"] == "await_approval" for wait in status["waiting"]):
            said = {"approved": True, "verdict": "good", "reason": "I looked"}
            self._ask("POST", f"fields/{FIELD}/verdict", said)
        elif not self._dismissed:
            self._notice(answer["findings"], is_settled(status))
        elif not self._staged:
            # The second file comes online soon. An answer may be lost with a daemon that dies: then it is asked for again.
            text = (self._state / "srm" / f"srm{TARGET}.txt").read_text(encoding="utf-8").splitlines()[1]
            self._staged = self._ask("POST", "stage", {"path": "mine.txt", "text": text}) is not None
        elif not self._reset:
            order = {"token_type": "nobodys", "state": "error", "reason": "I looked"}
            self._reset = self._ask("POST", "tokens", order) is not None
        elif not self._backed_up and status["steps"]:
            body = {"path": str(self._state / "backup.db"), "replace": True}
            self._backed_up = self._ask("POST", "backup", body) is not None
        elif self._backed_up:
            for doubt in answer["doubts"]:
                if doubt["state"] == "doubt":
                    action, ref = VERDICTS[doubt["step"]]
                    verdict = {"key": doubt["key"], "action": action, "ref": ref, "reason": "I looked"}
                    self._ask("POST", "doubt", verdict)

    def _notice(self, findings: list[dict[str, Any]], settled: bool) -> None:
        jobs = [finding["key"] for finding in findings if finding["key"].startswith("job:")]
        if jobs:
            verdict = {"key": jobs[0], "action": "forget", "reason": "a colleague's"}
            self._dismissed = self._ask("POST", "doubt", verdict) is not None
        elif settled and time.monotonic() - self._submitted_at > AGAIN_REAL_S:
            self._submitted_at = time.monotonic()
            environment = {"PATH": os.defpath, "X509_USER_PROXY": self._proxy}
            subprocess.run(self._submit, cwd=self._state, env=environment, check=True, stdout=subprocess.DEVNULL)
