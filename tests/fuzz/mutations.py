"""Structured mutations of recorded samples: wrong by one subtree, by one line or by some bytes, seldom by everything."""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from aglowd.errors import Permanent, Temporary, Unknown

EXAMPLES = int(os.environ.get("AGLOWD_FUZZ_EXAMPLES", "20"))
LIMIT_CPU_S = 3.0
"""CPU seconds that one answer may take, however odd; slow machines included."""

fuzzed = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)

ODD_TEXTS = (
    "",
    "\x00",
    "\x1b[2J",
    "a\r\nb",
    "\u2028",
    "😀" * 50,
    "../" * 20,
    "{{ 1 }}",
    "NaN",
    "-1",
    "1e999",
    "%s%n",
    "x" * 5000,
)
LEAVES: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([0, -1, 2**31, 2**53 + 1, 2**63, 2**64, -(2**64), 10**30, 1e308, -0.0, 1e-320]),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(ODD_TEXTS),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
)
JSON = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), inner, max_size=4)
    ),
    max_leaves=10,
)


def nested(depth: int) -> Any:
    """A list in a list, and so on."""
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


ODD = JSON | st.integers(1, 400).map(nested)


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every subtree but the root."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in inner:
        yield (*at, key)
        yield from places(below, (*at, key))


def _parent(value: Any, place: tuple[Any, ...]) -> Any:
    for key in place[:-1]:
        value = value[key]
    return value


@st.composite
def mutated(draw: st.DrawFn, sample: Any) -> Any:
    """The sample with some of its subtrees deleted, repeated, swapped or replaced; now and then something else entirely."""
    if draw(st.integers(0, 9)) == 0:
        return draw(ODD)
    value = copy.deepcopy(sample)
    for _ in range(draw(st.integers(1, 3))):
        ways = list(places(value))
        if not ways:
            return draw(ODD)
        place = draw(st.sampled_from(ways))
        parent, key = _parent(value, place), place[-1]
        match draw(st.sampled_from(("delete", "repeat", "swap", "replace", "replace", "rename"))):
            case "delete":
                del parent[key]
            case "repeat" if isinstance(parent, list):
                parent[key:key] = [copy.deepcopy(parent[key])] * draw(st.integers(1, 3))
            case "swap":
                other = draw(st.sampled_from(ways))
                parent[key] = copy.deepcopy(_parent(value, other)[other[-1]])
            case "rename" if isinstance(parent, dict):
                parent[draw(st.sampled_from(ODD_TEXTS))] = parent.pop(key)
            case _:
                parent[key] = draw(ODD)
    return value


ODD_BYTES = (
    b"",
    b"\x00",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b"\x1b[31m",
    b"\r",
    b"\n\n",
    b"<",
    b"&",
    b'"',
    b"[" * 2000,
    b" " * 20_000,
    b"A" * 20_000,
)


@st.composite
def mangled(draw: st.DrawFn, sample: bytes) -> bytes:
    """The sample cut at some place, or with some of its bytes or lines lost, repeated, moved or replaced."""
    data = sample
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.sampled_from((0, 1, 7, 80, 1000))))
        match draw(st.sampled_from(("cut", "lose", "replace", "repeat", "lines"))):
            case "cut":
                data = data[:start]
            case "lose":
                data = data[:start] + data[end:]
            case "replace":
                data = data[:start] + draw(st.sampled_from(ODD_BYTES) | st.binary(max_size=8)) + data[end:]
            case "repeat":
                data = data[:end] + data[start:end] * draw(st.integers(1, 20)) + data[end:]
            case "lines":
                lines = data.split(b"\n")
                data = b"\n".join(draw(st.permutations(lines)) if len(lines) < 60 else reversed(lines))
    return data


def mangled_json(sample: Any) -> st.SearchStrategy[bytes]:
    """A JSON text that is wrong in its structure, or in its bytes."""
    return st.one_of(mutated(sample).map(msgspec.json.encode), mangled(msgspec.json.encode(sample)))


@contextmanager
def bounded() -> Iterator[None]:
    """What happens inside takes little time; what it returns is checked for its size by who asked."""
    began = time.process_time()
    yield
    spent = time.process_time() - began
    assert spent < LIMIT_CPU_S, f"{spent:.1f} s of CPU"


async def outcome(call: Coroutine[Any, Any, Any], *, write: bool = False) -> Any:
    """What the call returned, or one of the three; whatever it is, the store can hold it."""
    with bounded():
        try:
            value = await call
        except (Temporary, Permanent, Unknown) as error:
            value = error
    assert write or not isinstance(value, Unknown), "only a write can be unknown"
    if isinstance(value, Exception):
        assert len(str(value)) < 5000
        msgspec.json.encode(str(value))
    else:
        msgspec.json.encode(msgspec.to_builtins(value, enc_hook=os.fspath))  # Some return paths.
    return value


def check(parse: Callable[[], Any], *allowed: type[Exception]) -> Any:
    """What the function returned, or the allowed error that it raised."""
    with bounded():
        try:
            return parse()
        except allowed as error:
            msgspec.json.encode(str(error))
            return error
