"""Whole runs: the daemon and the simulated grid as processes of their own, judged by the world's ledger."""
