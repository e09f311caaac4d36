"""What is agreed before anybody trades: contract terms, accounts, and the ways in which the venue says no."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class SimInstrument:
    """Terms of one linear perpetual, settled in its quote currency; contract size 1.

    The synthetic book behind the touch has `level_lots * depth` on every level, `level_ticks` ticks apart.
    Fees and `maintenance_rate` are fractions of the notional.
    """

    symbol_id: str
    """The venue's own name, e.g. `BTCUSDT`."""
    base: str
    quote: str = "USDT"
    tick_size: Decimal
    lot_step: Decimal
    lot_min: Decimal
    lot_max: Decimal
    max_market_lot: Decimal
    min_notional: Decimal = Decimal(5)
    max_leverage: Decimal = Decimal(100)
    maintenance_rate: Decimal = Decimal("0.005")
    taker_fee: Decimal = Decimal("0.00055")
    maker_fee: Decimal = Decimal("0.0002")
    level_lots: Decimal
    level_ticks: int = 1

    @property
    def symbol(self) -> str:
        """The name ccxt gives it: `BTC/USDT:USDT`."""
        return f"{self.base}/{self.quote}:{self.quote}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SimAccount:
    """One trading account with its API key. `leverage` is what every symbol starts with (Bybit: 10).

    `secret` never appears in the repr.
    """

    account_id: str
    api_key: str
    secret: str
    balance: Decimal
    leverage: Decimal = Decimal(10)
    read_only: bool = False
    """The key may read but not trade (retCode 10005 on every write)."""
    may_withdraw: bool = False
    """The key's permissions list a withdrawal right, which a careful agent refuses."""

    def __repr__(self) -> str:
        return f"SimAccount({self.account_id}, balance={self.balance})"


class VenueRefused(Exception):
    """The venue says no, definitively; nothing happened.

    `code` is Bybit's retCode, `word` the stable word the agent uses for the same refusal.
    """

    def __init__(self, code: int, word: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.word = word
        self.message = message


# One function a refusal, so that code, word and text of Bybit stay together.
# Codes: https://bybit-exchange.github.io/docs/v5/error


def invalid_volume(message: str) -> VenueRefused:
    """Lots that are off the grid, too small or too large."""
    return VenueRefused(10001, "INVALID_VOLUME", message)


def below_min_notional(value: Decimal, least: Decimal) -> VenueRefused:
    """The order is worth too little."""
    return VenueRefused(
        110094, "INVALID_VOLUME", f"Order notional value below the lower limit {least}USDT, was {value:f}"
    )


def invalid_price(message: str) -> VenueRefused:
    """A price that is off the grid or not positive."""
    return VenueRefused(10001, "INVALID_PRICE", message)


def invalid_stops(message: str) -> VenueRefused:
    """A stop or target on the wrong side or off the grid."""
    return VenueRefused(10001, "INVALID_STOPS", message)


def insufficient_margin() -> VenueRefused:
    """Not enough free margin for what the order would open."""
    return VenueRefused(110007, "INSUFFICIENT_MARGIN", "ab not enough for new order")


def duplicate_link() -> VenueRefused:
    """The account has used that orderLinkId before (here: for ever)."""
    return VenueRefused(110072, "DUPLICATE_ID", "OrderLinkedID is duplicate")


def no_position_to_reduce() -> VenueRefused:
    """A reduce-only order without a position that it could shrink."""
    return VenueRefused(110017, "NO_POSITION", "current position is zero, cannot fix reduce-only order qty")


def no_position_to_protect() -> VenueRefused:
    """A stop for a position that is not there."""
    return VenueRefused(10001, "NO_POSITION", "can not set tp/sl/ts for zero position")


def market_closed(symbol_id: str) -> VenueRefused:
    """The symbol is suspended or has no price yet."""
    return VenueRefused(110074, "MARKET_CLOSED", f"This contract is not live, {symbol_id}")


def unknown_symbol(symbol_id: str) -> VenueRefused:
    """No such instrument."""
    return VenueRefused(10001, "UNKNOWN_SYMBOL", f"params error: symbol invalid {symbol_id}")


def unknown_order(action: str) -> VenueRefused:
    """No such working order; `action` is `cancel` or `replace`."""
    return VenueRefused(110001, "UNKNOWN_ORDER", f"order not exists or too late to {action}")


def not_modified() -> VenueRefused:
    """The stop and target are what was asked for already."""
    return VenueRefused(34040, "NOT_MODIFIED", "not modified")


def leverage_not_modified() -> VenueRefused:
    """The leverage is what was asked for already."""
    return VenueRefused(110043, "NOT_MODIFIED", "Set leverage not modified")
