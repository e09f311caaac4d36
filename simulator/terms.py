"""What is agreed before anybody trades: contract terms, accounts, and the ways in which the venue says no."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from srm_agent.domain.units import Side


class SymbolState(StrEnum):
    """What may be done with a symbol now."""

    TRADING = "trading"
    CLOSED = "closed"
    """No matching: orders are refused and stops sleep (closed session, suspended)."""
    DISABLED = "disabled"
    """Orders and changes are refused; what rests in the book and stops still work."""
    CLOSE_ONLY = "close only"
    LONG_ONLY = "long only"
    SHORT_ONLY = "short only"

    def allows_opening(self, side: Side) -> bool:
        """New exposure of that side may be taken."""
        match self:
            case SymbolState.TRADING:
                return True
            case SymbolState.LONG_ONLY:
                return side is Side.BUY
            case SymbolState.SHORT_ONLY:
                return side is Side.SELL
            case _:
                return False


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
    stops_level: Decimal = Decimal(0)
    """Smallest distance of a stop or target from the price it is measured at, price units; 0: none."""
    freeze_level: Decimal = Decimal(0)
    """A stop or target that the market is this near to cannot be changed, price units; 0: none."""
    max_position: Decimal | None = None
    """Most lots that an account may hold, None: no limit."""

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


def opening_not_allowed(symbol_id: str, state: SymbolState) -> VenueRefused:
    """The symbol's state forbids this side, or any new exposure."""
    if state is SymbolState.CLOSE_ONLY:
        return VenueRefused(110023, "REDUCE_ONLY", f"Currently you can only reduce positions, {symbol_id}")
    return VenueRefused(10029, "NOT_PERMITTED", f"{symbol_id} is {state} at present")


def position_limit(most: Decimal, would_be: Decimal) -> VenueRefused:
    """The position would become larger than the account may hold."""
    return VenueRefused(110020, "LIMITS", f"position must not exceed {most:f}, would be {would_be:f}")


def frozen_stops(name: str, value: Decimal, base: Decimal, least: Decimal) -> VenueRefused:
    """The stop in force is too near to the market to be changed."""
    return VenueRefused(
        110058, "INVALID_STOPS", f"{name}:{value:f} is frozen, nearer than {least:f} to base_price:{base:f}"
    )


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
