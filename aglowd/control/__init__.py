"""What the daemon answers on its control socket: `routes.py` is the table of what can be asked.

`server.py` opens the socket and admits who may ask; `present.py` and `past.py` answer those who look, `orders.py` takes
orders, `followers.py` keeps those who follow the events; `requests.py` reads what a request carries.
"""

from aglowd.control.bodies import Verdict
from aglowd.control.health import Health, LoopHealth, SystemHealth
from aglowd.control.requests import MAX_BODY_BYTES, MAX_LIST_BODY_BYTES
from aglowd.control.server import IDLE_S, MAX_LINE_BYTES, Control

__all__ = [
    "IDLE_S",
    "MAX_BODY_BYTES",
    "MAX_LINE_BYTES",
    "MAX_LIST_BODY_BYTES",
    "Control",
    "Health",
    "LoopHealth",
    "SystemHealth",
    "Verdict",
]
