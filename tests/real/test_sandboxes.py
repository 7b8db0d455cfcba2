"""The contract of sandboxes, on real servers."""

from tests.grid.test_sandbox_contract import *  # noqa: F403 # Every test of it, with the ways of conftest.py.
