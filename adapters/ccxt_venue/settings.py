"""What the adapter must be told; the agent's own settings build these values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal

from srm_agent.domain.ids import Symbol
from srm_agent.domain.instrument import AssetClass
from srm_agent.errors import ConfigurationError

Environment = Literal["live", "testnet", "demo", "url"]

CLOCK_MARGIN_S = 2.0
"""Added to the receive window before an absent order may be final (brokers.md A.3-11)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CcxtVenueSettings:
    """One venue reached through ccxt. Times in seconds unless the name says otherwise.

    `environment` has no default: where orders go is always said. `url` needs `base_url` (REST, e.g.
    `http://127.0.0.1:8080`) and `ws_url` (e.g. `ws://127.0.0.1:8080`) and serves a local simulator.
    Raises ConfigurationError for a value that cannot work.
    """

    environment: Environment
    exchange: str = "bybit"
    base_url: str | None = None
    ws_url: str | None = None
    settle_currency: str = "USDT"
    symbols: tuple[Symbol, ...] = ()
    """Symbols to be traded; their position mode is verified when an account is opened. Empty: the first instrument."""
    asset_classes: Mapping[Symbol, AssetClass] = field(default_factory=dict)
    """Class by symbol; a symbol not listed is crypto."""
    pip_sizes: Mapping[Symbol, Decimal] = field(default_factory=dict)
    """Pip by symbol, instead of the shipped table by class."""
    request_timeout_s: float = 5.0
    receive_window_s: float = 5.0
    """A signed request older than this is refused by the venue, which bounds every doubt."""
    keep_alive_s: float = 2.0
    """Pause between two pings; an idle account stream is as fresh as its last pong."""
    stale_s: float = 5.0
    """A socket that gave no frame for this long is dropped and opened again."""
    quote_silence_s: float = 30.0
    """No quote of any subscribed symbol for this long: subscribe again, even though the socket answers pings."""
    backoff_first_s: float = 0.2
    backoff_cap_s: float = 10.0
    requests_per_s: float = 10.0
    """Own budget for one account (and one for market data); ccxt's limiter is off."""
    request_burst: int = 20
    reserved_for_exits: int = 5
    """The last tokens of the burst, which only exits may take (INV-9, INV-10)."""
    terms_refresh_s: float = 3600.0
    """How often contract terms are read again while quotes are listened to (B29)."""
    resync_lookback_s: float = 3600.0
    """How far back in market time the first Resync reads fills and cash flows; later ones start at the last."""

    def __post_init__(self) -> None:
        """Refuse what cannot work, naming the field, the value and the remedy."""
        if self.environment not in ("live", "testnet", "demo", "url"):
            raise ConfigurationError(f"environment must be live, testnet, demo or url, was {self.environment!r}")
        given = self.base_url is not None and self.ws_url is not None
        if (self.environment == "url") != given:
            raise ConfigurationError(
                "base_url and ws_url belong to environment 'url' and to it alone, "
                f"was environment {self.environment!r}, base_url {self.base_url!r}, ws_url {self.ws_url!r}"
            )
        for name in ("request_timeout_s", "receive_window_s", "keep_alive_s", "stale_s", "quote_silence_s",
                     "backoff_first_s", "backoff_cap_s", "requests_per_s", "terms_refresh_s"):  # fmt: skip
            value = getattr(self, name)
            if not 0 < value < float("inf"):
                raise ConfigurationError(f"{name} must be a positive number of seconds (or per second), was {value!r}")
        if not 0 <= self.reserved_for_exits < self.request_burst:
            raise ConfigurationError(
                f"reserved_for_exits must be at least 0 and below request_burst ({self.request_burst}), "
                f"was {self.reserved_for_exits!r}"
            )

    @property
    def finality_s(self) -> float:
        """After this long an unanswered order can no longer be accepted."""
        return self.receive_window_s + CLOCK_MARGIN_S


@dataclass(frozen=True, slots=True, kw_only=True)
class CcxtCredentials:
    """An API key without withdrawal right. Never shown by repr or str."""

    api_key: str = field(repr=False)
    secret: str = field(repr=False)

    def __post_init__(self) -> None:
        """Refuse empty parts."""
        for name in ("api_key", "secret"):
            if not getattr(self, name).strip():
                raise ConfigurationError(f"{name} is empty: set it in the credentials directory or the environment")
