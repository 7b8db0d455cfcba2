"""The contract of the token database, on a server from npm."""

from tests.grid.test_couch_accounts import *  # noqa: F403 # Every test of them, with the database of conftest.py.
from tests.grid.test_couch_contract import *  # noqa: F403
