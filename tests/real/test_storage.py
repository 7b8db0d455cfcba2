"""The storage contract, on real servers."""

from tests.grid.test_storage_contract import *  # noqa: F403 # Every test of it, with the ways of conftest.py.
