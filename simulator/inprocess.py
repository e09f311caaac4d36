"""The agent's ports directly on the venue: no sockets, the same symbols and words as the ccxt adapter.

Latency is slept on the running loop, so a virtual loop makes it free. Faults are those of `faults.py`, by the same REST
paths, as the port shows them: a lost answer to an order is UNKNOWN, a lost read raises BrokerUnreachable.
"""

from __future__ import annotations

from simulator.inprocess_broker import InProcessBroker
from simulator.inprocess_feed import InProcessFeed

__all__ = ["InProcessBroker", "InProcessFeed"]
