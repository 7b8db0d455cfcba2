"""The adapters to the outside systems: one file per system, over two transports, `http.py` and `proc.py`.

Verbs only: no state (it stands in `gate.py`), no policy, no retries. Whatever goes wrong is
one of `Temporary`, `Permanent` or `Unknown`.
"""
