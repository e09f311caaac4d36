"""A small venue with one instrument and two accounts."""

from __future__ import annotations

import random
from collections.abc import Callable
from decimal import Decimal

import pytest

from simulator.venue import SimAccount, SimInstrument, Venue

START_MS = 1_767_610_800_000


def build_venue(balance: Decimal = Decimal(10_000), leverage: Decimal = Decimal(10)) -> Venue:
    """BTCUSDT at 100.0 / 100.5: one lot a level, levels 0.5 apart, accounts `c01` and `c02`."""
    instrument = SimInstrument(
        symbol_id="BTCUSDT",
        base="BTC",
        tick_size=Decimal("0.1"),
        lot_step=Decimal("0.01"),
        lot_min=Decimal("0.01"),
        lot_max=Decimal(1000),
        max_market_lot=Decimal(500),
        min_notional=Decimal(5),
        level_lots=Decimal(1),
        level_ticks=5,
    )
    accounts = [
        SimAccount(account_id=name, api_key=f"key-{name}", secret=f"secret-{name}", balance=balance, leverage=leverage)
        for name in ("c01", "c02")
    ]
    venue = Venue([instrument], accounts, random.Random(1))
    venue.set_book("BTCUSDT", Decimal("100.0"), Decimal("100.5"), START_MS)
    return venue


@pytest.fixture
def venue() -> Venue:
    """The small venue."""
    return build_venue()


@pytest.fixture(scope="session")
def make_venue() -> Callable[..., Venue]:
    """Builds small venues: `make_venue(balance, leverage)`."""
    return build_venue
