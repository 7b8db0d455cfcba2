"""`aglowctl add`, `import`, `export` and `release` as processes of their own, in front of a real catalogue and socket."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from populated import healthy
from support import opened

from aglowd.cli.catalogue import MAX_FILE_BYTES
from aglowd.clock import Clock
from aglowd.control import Control
from aglowd.effects.base import World
from aglowd.field_orders import RELEASE, FieldOrders
from aglowd.grid.catalogue_own import OwnCatalogue
from aglowd.wiring import load_pipelines

from .test_aglowctl import Served

LINE = "SND,229511,2456805.625,8,2.01326592,242,229507,2456805.61736,8,2.01326592,244,P1,\n"
ADD = ("add", "P2+20", "--target", "L229509", "--calibrator", "229507", "--site", "Juelich", "--priority", "3")


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with opened(tmp_path / "aglowd.db", Clock()) as store:
        catalogue = OwnCatalogue(tmp_path / "catalogue.db", "here")
        world = cast(World, SimpleNamespace(catalogue=catalogue))
        release = load_pipelines("", RELEASE)[RELEASE]
        orders = FieldOrders(store, world, release, ("SND",), ("AAA", "ZZZ"))
        server = Control(store, healthy, store.clock, "1.2.3", field_orders=orders)
        path = tmp_path / "aglowd.sock"
        async with server.serve(path):
            yield Served(path, store)


async def export(served: Served) -> list[dict[str, Any]]:
    rc, out, err = await served.run("export", "--json")
    assert (rc, err) == (0, "")
    answer = json.loads(out)
    assert answer.keys() == {"schema", "now", "fields"}
    return cast(list[dict[str, Any]], answer["fields"])


async def test_a_field_is_added_with_what_is_known_of_it(served: Served) -> None:
    assert await served.run(*ADD, "--target-time-resolution", "2.5") == (0, "P2+20 was added\n", "")
    (field,) = await export(served)
    assert (field["name"], field["status"], field["site"], field["priority"]) == ("P2+20", "SND", "juelich", [3, 0])
    assert (field["target_obsid"], field["target_time_resolution"]) == ("L229509", 2.5)
    rc, out, err = await served.run(*ADD)
    assert (rc, out) == (1, "")
    assert "found P2+20 there already" in err
    rc, _, err = await served.run("add", "P3", "--target", "L1")
    assert rc == 2
    assert "Missing option '--calibrator'" in err
    rc, _, err = await served.run("add", "P3", "--target", "L1", "--calibrator", "two")
    assert rc == 1
    assert "expected name, target and calibrator as JSON" in err


async def test_a_file_goes_in_and_comes_out(served: Served, tmp_path: Path) -> None:
    path = tmp_path / "fields.csv"
    path.write_text(LINE + LINE.replace("P1", "P2").replace("SND", "ZZZ"))
    assert await served.run("import", str(path)) == (0, "2 fields were added\n", "")
    assert await served.run("export") == (0, path.read_text(), "")
    path.write_text(LINE.replace("P1", "P3") + "SND,1\n")
    rc, out, err = await served.run("import", str(path))
    assert (rc, out) == (1, "")
    assert f"{path}:2: found 2 columns" in err
    assert "nothing was imported" in err
    assert len(await export(served)) == 2
    rc, _, err = await served.run("import", str(tmp_path / "none"))
    assert rc == 1
    assert "the fields file cannot be read: No such file" in err
    path.write_bytes(b"x" * (MAX_FILE_BYTES + 1))
    rc, _, err = await served.run("import", str(path))
    assert f"longer than {MAX_FILE_BYTES} bytes" in err


async def test_a_field_is_given_back(served: Served, tmp_path: Path) -> None:
    path = tmp_path / "fields.csv"
    path.write_text(LINE.replace("SND", "ZZZ"))
    await served.run("import", str(path))
    rc, _, err = await served.run("release", "P1")
    assert rc == 1
    assert "P1 is in status 'ZZZ', which is not aglowd's word" in err
    rc, out, err = await served.run("release", "P1", "--from", "ZZZ", "--to", "SND", "--reason", "once more")
    assert (rc, err) == (0, "")
    assert out.startswith("P1: from ZZZ to SND, run release_P1-1 has begun")
    rc, _, err = await served.run("release", "P9")
    assert rc == 1
    assert "there is no field P9" in err
