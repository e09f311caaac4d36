"""What a market feed does wrong: bad quotes, wrong time stamps, silence. Seconds of the running loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from enum import StrEnum

from simulator.spells import Spell
from srm_agent.domain.ids import Symbol
from srm_agent.domain.market import Quote


class BadQuote(StrEnum):
    """How a quote is spoilt (B24, B25)."""

    CROSSED = "crossed"
    LOCKED = "locked"
    ZERO = "zero"
    NEGATIVE = "negative"
    NAN = "nan"
    INFINITE = "infinite"
    HUGE = "huge"
    SWAPPED = "swapped"
    SHIFTED = "shifted"
    DUPLICATE = "duplicate"
    OUT_OF_ORDER = "out of order"


def spoilt(quote: Quote, how: BadQuote) -> list[Quote]:
    """What arrives instead of a good quote."""
    bid, ask, width = quote.bid, quote.ask, quote.spread
    match how:
        case BadQuote.CROSSED:
            return [replace(quote, bid=ask + width)]
        case BadQuote.LOCKED:
            return [replace(quote, bid=ask)]
        case BadQuote.ZERO:
            return [replace(quote, bid=Decimal(0))]
        case BadQuote.NEGATIVE:
            return [replace(quote, bid=-bid, ask=-ask)]
        case BadQuote.NAN:
            return [replace(quote, ask=Decimal("NaN"))]
        case BadQuote.INFINITE:
            return [replace(quote, ask=Decimal("Infinity"))]
        case BadQuote.HUGE:
            return [replace(quote, bid=Decimal("1e9"), ask=Decimal("1e9") + width)]
        case BadQuote.SWAPPED:
            return [replace(quote, bid=ask, ask=bid)]
        case BadQuote.SHIFTED:
            return [replace(quote, bid=bid * 100, ask=ask * 100)]
        case BadQuote.DUPLICATE:
            return [quote, quote]
        case BadQuote.OUT_OF_ORDER:
            return [quote, replace(quote, at=quote.at - timedelta(seconds=1))]


class FeedMischief:
    """Trouble of one feed; `wake` is called when a silence begins."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._bad: list[tuple[BadQuote, Symbol | None]] = []
        self._muted = Spell()
        self._frozen: dict[Symbol, tuple[Spell, Quote | None]] = {}
        self._offset, self._jumped = timedelta(0), Spell()
        self._conversions: dict[Symbol, tuple[Spell, str]] = {}

    # ---- to be called by who makes trouble

    def spoil(self, how: BadQuote, symbol: Symbol | None = None, count: int = 1) -> None:
        """The next `count` quotes (of that symbol) arrive like this."""
        self._bad.extend([(how, symbol)] * count)

    def mute(self, seconds: float) -> None:
        """No frames at all, and no break either: the socket is open and answers pings (B23)."""
        self._muted.begin(seconds)
        self._wake()

    def freeze(self, symbol: Symbol, seconds: float) -> None:
        """Quotes go on coming, with the price and the stamp of the first one from now (B23)."""
        spell = Spell()
        spell.begin(seconds)
        self._frozen[symbol] = (spell, None)

    def jump_time(self, offset_s: float, seconds: float) -> None:
        """The server's clock is wrong by so much, for so long: the broker's time zone changed (B25)."""
        self._offset = timedelta(seconds=offset_s)
        self._jumped.begin(seconds)

    def hide_conversion(self, symbol: Symbol, currency: str, seconds: float) -> None:
        """The symbol settles in a currency that nobody can convert (B30)."""
        spell = Spell()
        spell.begin(seconds)
        self._conversions[symbol] = (spell, currency)

    def calm(self) -> None:
        """No more trouble."""
        self._bad.clear()
        self._frozen.clear()
        self._conversions.clear()
        self._muted.end()
        self._jumped.end()

    # ---- to be asked by the feed

    @property
    def muted(self) -> bool:
        """Nothing is said."""
        return self._muted.on

    @property
    def honest(self) -> bool:
        """Quotes come, and they are the venue's."""
        return not (self.muted or self._bad or self._jumped.on or any(spell.on for spell, _ in self._frozen.values()))

    def told(self, quote: Quote) -> list[Quote]:
        """What arrives instead of this quote."""
        if self._jumped.on:
            quote = replace(quote, at=quote.at + self._offset)
        if self._frozen:
            quote = self._thawing(quote)
        for index, (how, symbol) in enumerate(self._bad):
            if symbol in (None, quote.symbol):
                del self._bad[index]
                return spoilt(quote, how)
        return [quote]

    def settle_currency(self, symbol: Symbol, currency: str) -> str:
        """In which money the symbol settles, as the feed tells it now."""
        spell, other = self._conversions.get(symbol, (None, currency))
        return other if spell is not None and spell.on else currency

    def _thawing(self, quote: Quote) -> Quote:
        spell, kept = self._frozen.get(quote.symbol, (None, None))
        if spell is None:
            return quote
        if not spell.on:
            del self._frozen[quote.symbol]
            return quote
        if kept is None:
            self._frozen[quote.symbol] = (spell, quote)
            return quote
        return replace(quote, bid=kept.bid, ask=kept.ask, at=kept.at)
