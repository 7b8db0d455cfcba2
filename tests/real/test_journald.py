"""The log of the shipped unit in a real journal: its fields, its long lines, and how aglowctl finds them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from aglowd.log import MAX_ITEMS, MAX_TEXT_CHARS

from .box import ROOT, TIMEOUT_S, play

pytestmark = pytest.mark.timeout(2 * TIMEOUT_S)

DRIVER = """
import json, os, socket, time
from pathlib import Path
import structlog
from aglowd import log

log.configure()
Path("/var/lib/aglowd/place").write_text(json.dumps(log.place()))
logger = structlog.get_logger("reactor")
logger.info("step_wait", field="P229+62", run="P229+62-1", step="stage", reason="188 of 244 online")
logger.info("step_wait", field="P14+30", run="P14+30-1", step="stage", reason="no turn")
logger.warning("long", field="P229+62", what=["x" * 5000] * 200)
try:
    raise ValueError("a row of three")
except ValueError:
    logger.exception("decision_failed", field="P229+62")
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
    notify.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
time.sleep(600)
"""

SCENARIO = """
useradd --system --home-dir /var/lib/aglowd aglowd
mkdir /etc/systemd/system/aglowd.service.d
cp /mnt/driver.conf /etc/systemd/system/aglowd.service.d/
systemctl daemon-reload
systemctl start aglowd
cp /var/lib/aglowd/place /mnt/place
journalctl --sync
journalctl --all -o json AGLOW_FIELD=P229+62 > /mnt/entries
sh /mnt/aglowctl logs P229+62 --json > /mnt/lines
sh /mnt/aglowctl logs P229+62 --since 1h > /mnt/text
systemctl stop aglowd
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the scenario left."""
    made = tmp_path_factory.mktemp("journal")
    unit = (ROOT / "systemd" / "aglowd.service").read_text()
    begins = f"ExecStartPre=\nExecStart=\nExecStart={sys.executable} /mnt/driver.py\nEnvironment=PYTHONPATH={ROOT}"
    aglowctl = f"PYTHONPATH={ROOT} exec {sys.executable} -c 'from aglowd.cli.control import main; main()' \"$@\"\n"
    files = {"driver.py": DRIVER, "driver.conf": f"[Service]\n{begins}\n", "aglowd.service": unit, "aglowctl": aglowctl}
    play(made, SCENARIO, files)
    return made


def test_the_journal_knows_the_fields(place: Path) -> None:
    entries = [json.loads(line) for line in (place / "entries").read_text().splitlines()]
    assert [entry["AGLOW_EVENT"] for entry in entries] == ["step_wait", "long", "decision_failed"]
    first, long, raised = entries
    assert first["MESSAGE"] == 'step_wait field=P229+62 run=P229+62-1 step=stage reason="188 of 244 online"'
    assert (first["AGLOW_RUN"], first["AGLOW_STEP"], first["PRIORITY"]) == ("P229+62-1", "stage", "6")
    assert (first["_SYSTEMD_UNIT"], first["_TRANSPORT"]) == ("aglowd.service", "journal")
    assert len(long["MESSAGE"]) > MAX_ITEMS * MAX_TEXT_CHARS, "what no datagram holds"
    assert raised["MESSAGE"].endswith("ValueError: a row of three")
    assert raised["PRIORITY"] == "3"


def test_the_daemon_knows_where_its_log_is(place: Path) -> None:
    assert json.loads((place / "place").read_text()) == {"to": "journal", "unit": "aglowd.service", "native": "yes"}


def test_aglowctl_finds_a_fields_lines(place: Path) -> None:
    lines = [json.loads(line) for line in (place / "lines").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["step_wait", "long", "decision_failed"]
    text = (place / "text").read_text()
    assert "step_wait field=P229+62" in text
    assert "P14" not in text
