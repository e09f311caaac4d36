"""Faults by chance: what can strike a running world, by the ids of the catalogue."""

from __future__ import annotations

from simulator.catalogue import CATALOGUE
from simulator.chaos import machine, market, orders
from simulator.chaos.strikes import INJECTORS, Strike, calm, inject, schedule
from simulator.chaos.world import ChaosWorld

__all__ = ["IDS", "INJECTORS", "ChaosWorld", "Strike", "calm", "inject", "machine", "market", "orders", "schedule"]

IDS = tuple(name for name in CATALOGUE if name in INJECTORS)
"""All that can strike by chance, in the catalogue's order."""
