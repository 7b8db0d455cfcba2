"""`aglowctl forget`, `verify`, `doctor` and `report`: processes of their own, in front of a real store and socket."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

from support import rows

from .test_aglowctl import Served, served  # noqa: F401 # A fixture.
from .test_steer import Daemon, daemon  # noqa: F401 # A fixture.


async def test_a_run_is_forgotten_after_a_look(daemon: Daemon) -> None:  # noqa: F811
    daemon.broken.update({"P1", "P2"})
    await daemon.begin("P1", "P2", "P3")
    out = await daemon.ok("forget", "P*", "--dry-run")
    assert "P1-1  P1     failed" in out
    assert "2 would be forgotten" in out
    assert "P3-1 stays: it is running; cancel it first: aglowctl cancel P3-1" in out
    assert len(await rows(daemon.store, "SELECT * FROM steps")) == 9, "a dry run changed something"
    err = await daemon.refused("forget", "P1-1")
    assert "Aborted" in err, "without a terminal nobody confirms"
    answer = await daemon.asked("forget", "P1-1", "--yes", "--reason", "long ago")
    assert (answer["done"], [one["run"] for one in answer["runs"]]) == (True, ["P1-1"])
    (event,) = await rows(daemon.store, "SELECT * FROM events WHERE kind = 'RunForgotten'")
    assert json.loads(event["data"])["reason"] == "long ago"
    assert "there is no run 'P1-1'" in await daemon.refused("forget", "P1-1", "--yes")
    assert "P2 has P2-1" in await daemon.refused("forget", "P2", "--yes")
    assert "it is running" in await daemon.refused("forget", "P3-1", "--yes")


async def test_a_backup_is_verified_without_a_daemon(served: Served, tmp_path: Path) -> None:  # noqa: F811
    path = tmp_path / "backup.db"
    code, _, err = await served.run("backup", str(path))
    assert code == 0, err
    nobody = str(tmp_path / "nobody.sock")
    code, out, err = await served.run("--socket", nobody, "verify", str(path))
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == "it is whole, and its journal hangs together"
    assert "effects 1 doubt" in out
    db = sqlite3.connect(path)
    db.execute("UPDATE effects SET inputs = '{}'")
    db.commit()
    db.close()
    code, out, _ = await served.run("--socket", nobody, "verify", str(path), "--json")
    answer = json.loads(out)
    assert (code, answer["schema"], answer["ok"]) == (1, 1, False)
    assert answer["problems"]
    code, _, err = await served.run("verify", str(tmp_path / "aglowd.db"))
    assert (code, "a database in use" in err) == (1, True)
