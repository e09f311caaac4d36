"""The agent's ports directly on the venue: no sockets, the same symbols and words as the ccxt adapter.

Requests and replies are packets on the running loop, so a virtual loop makes latency free and a killed sender's order
arrives all the same. What goes wrong has one place each: the line in `network.py`, the broker in `mischief.py`, what
reads show in `sight.py`, the feed in `feed_mischief.py`, the venue's core in `venue_mischief.py` and `holds.py`, and by
REST path, as the port shows it, in `faults.py`. A lost answer to an order is UNKNOWN, a lost read BrokerUnreachable.
"""

from __future__ import annotations

from simulator.inprocess_broker import InProcessBroker
from simulator.inprocess_feed import InProcessFeed

__all__ = ["InProcessBroker", "InProcessFeed"]
