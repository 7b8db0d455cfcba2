"""The simulated grid: real servers and real executables that speak the real protocols, for the demo and the tests.

It runs as a process of its own (`python -m aglowd.sim`) and shares no code with the daemon, because it judges it.
"""
