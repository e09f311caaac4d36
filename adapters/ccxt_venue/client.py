"""The only place that touches ccxt: makes instances, calls them, and turns their exceptions into plain data."""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from adapters.ccxt_venue.failures import CallFailed, describe
from adapters.ccxt_venue.rows import Row, as_row
from adapters.ccxt_venue.settings import CcxtCredentials, CcxtVenueSettings
from srm_agent.errors import ConfigurationError

_LIBRARY_DEFECTS = (TypeError, AttributeError, KeyError, IndexError, ValueError, ArithmeticError, OSError, TimeoutError)
"""What ccxt's parsers raise on replies they did not expect."""


class VenueClient:
    """One unmodified ccxt.pro instance.

    Every method raises CallFailed for anything that went wrong in the library or on the wire, BadRow for a reply that
    is no object. Rate limiting is off here: `budget.py` decides.
    """

    def __init__(self, settings: CcxtVenueSettings, credentials: CcxtCredentials | None) -> None:
        self._exchange: Any = _make(settings, credentials)
        self._errors: tuple[type[Exception], ...] = (_library().BaseError, *_LIBRARY_DEFECTS)

    # ---- instance ------------------------------------------------------------------------------------------------

    async def load_markets(self) -> None:
        """Read all instruments (again)."""
        await self._guard(self._exchange.load_markets(True))

    def share_markets(self, source: VenueClient) -> None:
        """Use the instruments another instance has read."""
        self._exchange.set_markets_from_exchange(source._exchange)

    def markets(self) -> Mapping[str, Row]:
        """Instruments by unified symbol; empty before `load_markets`."""
        return self._exchange.markets or {}

    def symbol_of_id(self, market_id: str) -> str:
        """Unified symbol of a contract's id, or the id itself if it is not known."""
        for market in (self._exchange.markets_by_id or {}).get(market_id, ()):
            if market.get("contract"):
                return str(market["symbol"])
        return market_id

    def id_of_symbol(self, symbol: str) -> str | None:
        """The venue's id of a unified symbol."""
        market = self.markets().get(symbol)
        return None if market is None else str(market["id"])

    async def close(self) -> None:
        """Close sessions and sockets; idempotent."""
        await self._exchange.close()

    # ---- requests ------------------------------------------------------------------------------------------------

    async def call(self, endpoint: str, params: Mapping[str, object]) -> Row:
        """One endpoint of the venue by ccxt's implicit method name; the `result` object of its reply."""
        reply = await self._guard(getattr(self._exchange, endpoint)(dict(params)))
        return as_row(as_row(reply, endpoint).get("result"), f"result of {endpoint}")

    async def unified(self, method: str, *arguments: object) -> object:
        """One unified method of ccxt, e.g. `fetch_ohlcv`."""
        return await self._guard(getattr(self._exchange, method)(*arguments))

    async def create_order(
        self, symbol: str, kind: str, side: str, amount: str, price: str | None, params: Mapping[str, object]
    ) -> str | None:
        """Send one order, once. The venue's order id, or None if the reply carried none (which proves nothing)."""
        order = await self._guard(self._exchange.create_order(symbol, kind, side, amount, price, dict(params)))
        order_id = order.get("id") if isinstance(order, Mapping) else None
        return order_id if isinstance(order_id, str) and order_id else None

    async def measure_clock(self) -> None:
        """Measure the venue's clock against ours; later signatures use the difference."""
        await self._guard(self._exchange.load_time_difference())

    def has(self, feature: str) -> bool:
        """Whether the class implements a unified feature natively or by emulation."""
        return bool(self._exchange.has.get(feature))

    # ---- streams -------------------------------------------------------------------------------------------------

    async def watch(self, method: str, *arguments: object) -> object:
        """One watch call. Suspends only inside ccxt, so that nothing arrives between two calls unseen (A.3-1)."""
        try:
            return await getattr(self._exchange, method)(*arguments)
        except self._errors as error:
            raise CallFailed(describe(error)) from error

    def cached(self, name: str) -> object:
        """ccxt's cache of a stream (`bidsasks`, `positions`, `balance`): the latest of each."""
        return getattr(self._exchange, name)

    def subscribed(self, hashes: Sequence[str]) -> bool:
        """True once every one of these subscriptions has been sent."""
        known = {name for client in self._clients() for name in client.subscriptions}
        return all(name in known for name in hashes)

    def last_message_ms(self) -> int:
        """Wall milliseconds of the newest frame on any socket; 0 before the first."""
        return max((client.last_message_at or 0 for client in self._clients()), default=0)

    async def ping(self) -> None:
        """Send one ping on every socket, out of turn. Raises CallFailed."""
        for client in self._clients():
            await self._guard(client.send(self._exchange.ping(client)))

    def answered(self) -> bool:
        """True once every socket has seen a pong since it was opened."""
        clients = self._clients()
        return bool(clients) and all(client.lastPong is not None for client in clients)

    async def reset_streams(self) -> None:
        """Drop all sockets with everything remembered from them.

        Only a complete restart is trusted: after some errors ccxt keeps a dead client, a subscription that was never
        sent, or caches from before the gap (A.3-2 to A.3-6).
        """
        exchange = self._exchange
        clients = list(self._clients())
        exchange.clients = {}
        for client in clients:
            try:
                await client.close()
            except self._errors:
                # The socket is being abandoned; what it says about its own end does not matter.
                continue
        exchange.clean_ws_data()
        exchange.bidsasks = exchange.create_safe_dictionary(True)
        # The library's own pause would add to ours, up to 30 s.
        exchange.ws_dial_backoff = {}

    def _clients(self) -> list[Any]:
        return list((self._exchange.clients or {}).values())

    async def _guard(self, call: Awaitable[Any]) -> Any:
        try:
            return await call
        except self._errors as error:
            raise CallFailed(describe(error)) from error


def load_library() -> None:
    """Import ccxt.pro now: it costs 120 MB and holds the caller up for a second or more, once."""
    _library()


def _library() -> Any:
    return importlib.import_module("ccxt.pro")


def error_classes() -> Mapping[str, type[Exception]]:
    """Every exception class of the library by name (tests prove that each is judged)."""
    errors = importlib.import_module("ccxt.base.errors")
    return {name: cls for name, cls in vars(errors).items() if isinstance(cls, type) and issubclass(cls, Exception)}


def _make(settings: CcxtVenueSettings, credentials: CcxtCredentials | None) -> Any:
    factory: Callable[[dict[str, object]], Any] | None = getattr(_library(), settings.exchange, None)
    if factory is None:
        raise ConfigurationError(f"exchange must be a class of ccxt.pro, was {settings.exchange!r}")
    keep_alive_ms = int(settings.keep_alive_s * 1000)
    config: dict[str, object] = {
        "timeout": int(settings.request_timeout_s * 1000),
        "enableRateLimit": False,
        "aiohttp_trust_env": False,
        "options": {
            "defaultType": "swap",
            "maxRetriesOnFailure": 0,
            "recvWindow": int(settings.receive_window_s * 1000),
            # Sent as a Referer header on every order if left alone.
            "brokerId": None,
            # Keep alive decides how long a dead or broken socket stays unnoticed (A.3-5).
            "ws": {"keepAlive": keep_alive_ms, "connectionTimeout": int(max(1.0, settings.stale_s - 1.0) * 1000)},
            # The snapshot hangs for ever once it failed (A.3-6); we read positions ourselves.
            "watchPositions": {"fetchPositionsSnapshot": False, "awaitPositionsSnapshot": False},
            **_dialect_options(settings.exchange),
        },
    }
    if credentials is not None:
        config |= {"apiKey": credentials.api_key, "secret": credentials.secret}
    exchange = factory(config)
    _point(exchange, settings)
    return exchange


def _dialect_options(exchange: str) -> dict[str, object]:
    if exchange != "bybit":
        return {}
    return {
        "fetchMarkets": {"types": ["linear"]},
        # No filter by kind: liquidations and deleveraging must be seen (brokers.md A.2, fills).
        "watchMyTrades": {"execType": None, "filterExecTypes": None},
    }


def _point(exchange: Any, settings: CcxtVenueSettings) -> None:
    match settings.environment:
        case "testnet":
            exchange.set_sandbox_mode(True)
        case "demo":
            exchange.enable_demo_trading(True)
        case "url":
            if settings.exchange != "bybit":
                raise ConfigurationError(f"environment 'url' serves bybit only, exchange was {settings.exchange!r}")
            # Waits for TLS to close, which a plain local connection has not.
            exchange.timeout_on_exit = 0
            rest, streams = str(settings.base_url).rstrip("/"), str(settings.ws_url).rstrip("/")
            urls = exchange.urls["api"]
            for api in ("spot", "futures", "v2", "public", "private"):
                urls[api] = rest
            for category in urls["ws"]["public"]:
                urls["ws"]["public"][category] = f"{streams}/v5/public/{category}"
            urls["ws"]["private"].update(
                contract=f"{streams}/v5/private", usdc=f"{streams}/v5/private", trade=f"{streams}/v5/trade"
            )
        case "live":
            pass
