"""The contract terms of a symbol at a broker."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from srm_agent.domain.ids import Symbol
from srm_agent.domain.units import ZERO


class AssetClass(StrEnum):
    """What kind of thing it is; from the configuration or the broker's data, never from the letters of the symbol."""

    FX = "fx"
    METAL = "metal"
    INDEX = "index"
    CRYPTO = "crypto"


@dataclass(frozen=True, slots=True, kw_only=True)
class Instrument:
    """Terms of one symbol. Prices in quote currency, lots in the broker's own volume unit.

    `contract_size` converts: money per price unit and lot = contract_size, in `settle_currency`.
    `pip_size` None: this instrument has no pip; thresholds in pips are a configuration error for it.
    """

    symbol: Symbol
    asset_class: AssetClass
    base_currency: str
    quote_currency: str
    settle_currency: str
    tick_size: Decimal
    pip_size: Decimal | None
    lot_min: Decimal
    lot_max: Decimal
    lot_step: Decimal
    contract_size: Decimal
    min_notional: Decimal = ZERO
    stops_distance: Decimal = ZERO
    """Smallest distance between touch and stop, in price units (MT5: the stops level)."""
    freeze_distance: Decimal = ZERO
    """A stop or target nearer to the touch than this may not be changed, in price units (MT5: the freeze level)."""
    max_leverage: Decimal = Decimal(1)
    tradable: bool = True

    def loss(self, lot: Decimal, distance: Decimal) -> Decimal:
        """Money in `settle_currency` that `lot` loses over `distance` price units."""
        return lot * distance * self.contract_size

    def notional(self, lot: Decimal, price: Decimal) -> Decimal:
        """Value of `lot` at `price`, in `settle_currency`."""
        return lot * price * self.contract_size

    def pips(self, distance: Decimal) -> Decimal | None:
        """A price distance in pips, or None where the instrument has no pip."""
        return None if self.pip_size is None else distance / self.pip_size


def standard_pip(asset_class: AssetClass, base_currency: str, quote_currency: str) -> Decimal | None:
    """The shipped table of pip sizes by class and currencies (the instrument's data, not letters of its name).

    FX 0.0001, quoted in JPY 0.01; gold 0.1, silver and other metals 0.01; indices 1; crypto has no pip.
    """
    match asset_class:
        case AssetClass.FX:
            return Decimal("0.01") if quote_currency == "JPY" else Decimal("0.0001")
        case AssetClass.METAL:
            return Decimal("0.1") if base_currency == "XAU" else Decimal("0.01")
        case AssetClass.INDEX:
            return Decimal(1)
        case AssetClass.CRYPTO:
            return None
