"""A scenario file: which instruments, providers and accounts exist, and between what bounds the seed may draw."""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator

from simulator.calendar import MarketKind
from simulator.followers import Follower
from simulator.prices import SymbolSpec
from simulator.providers import STYLES
from simulator.story import GapTerms, ProviderPlan
from simulator.terms import SimInstrument
from srm_agent.errors import ConfigurationError

DEMO = Path(__file__).parent / "scenarios" / "demo.toml"

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,32}$")]
Positive = Annotated[Decimal, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class MarketPart(_Part):
    """When the world begins."""

    start: AwareDatetime
    history_days: Annotated[int, Field(ge=0, le=60)] = 5


class GapPart(_Part):
    """Bounds of the declared gap."""

    victim: Name
    symbols: Annotated[tuple[Name, ...], Field(min_length=1)]
    smallest: Annotated[float, Field(gt=0, lt=0.5)] = 0.06
    largest: Annotated[float, Field(gt=0, lt=0.5)] = 0.09
    earliest: Annotated[float, Field(ge=0.3, le=0.9)] = 0.50
    latest: Annotated[float, Field(ge=0.3, le=0.9)] = 0.65


class InstrumentPart(_Part):
    """Contract terms and the kind of path."""

    symbol_id: Name
    base: Name
    quote: Name = "USDT"
    kind: MarketKind
    currencies: tuple[Name, ...]
    start_price: Annotated[float, Field(gt=0)]
    daily_volatility: Annotated[float, Field(gt=0, lt=1)]
    spread_bps: Annotated[float, Field(gt=0, lt=1000)]
    tick_size: Positive
    lot_step: Positive
    lot_min: Positive
    lot_max: Positive
    max_market_lot: Positive
    min_notional: Positive
    max_leverage: Positive
    maintenance_rate: Positive
    taker_fee: Decimal
    maker_fee: Decimal
    level_lots: Positive
    level_ticks: Annotated[int, Field(ge=1)]


class ProviderPart(_Part):
    """A provider: style, what he may trade, and how many of it."""

    id: Name
    style: str
    symbols: Annotated[tuple[Name, ...], Field(min_length=1)]
    count: Annotated[int, Field(ge=1)]


class AccountPart(_Part):
    """A follower's account."""

    id: Name
    balance: Positive
    leverage: Annotated[Decimal, Field(ge=1)] = Decimal(10)
    flow: Decimal | None = None
    flow_at: Share = 0.5


class Scenario(_Part):
    """A whole scenario file."""

    market: MarketPart
    gap: GapPart
    instruments: Annotated[tuple[InstrumentPart, ...], Field(min_length=1)]
    providers: Annotated[tuple[ProviderPart, ...], Field(min_length=1)]
    accounts: Annotated[tuple[AccountPart, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _holds_together(self) -> Scenario:
        known = {part.symbol_id for part in self.instruments}
        _unique("instruments.symbol_id", (part.symbol_id for part in self.instruments))
        _unique("providers.id", (part.id for part in self.providers))
        _unique("accounts.id", (part.id for part in self.accounts))
        for name, symbols in [("gap", self.gap.symbols), *((part.id, part.symbols) for part in self.providers)]:
            if missing := [symbol for symbol in symbols if symbol not in known]:
                raise ValueError(f"{name}: symbols has {missing[0]!r}, which no [[instruments]] declares")
        for part in self.providers:
            if part.style not in STYLES:
                raise ValueError(f"provider {part.id}: style must be one of {', '.join(STYLES)}, was {part.style!r}")
            if part.id != self.gap.victim and len(set(part.symbols)) < 2:
                raise ValueError(f"provider {part.id}: needs two symbols, one may be left out on the day of the gap")
        if not any(part.id == self.gap.victim and part.style == "loss_holder" for part in self.providers):
            raise ValueError(f"gap: victim must be a provider of style loss_holder, was {self.gap.victim!r}")
        if self.gap.smallest > self.gap.largest or self.gap.earliest > self.gap.latest:
            raise ValueError("gap: smallest must not exceed largest, nor earliest latest")
        return self

    def specs(self) -> Sequence[SymbolSpec]:
        """What prices need of the instruments."""
        return [
            SymbolSpec(
                symbol_id=part.symbol_id,
                kind=part.kind,
                currencies=part.currencies,
                start_price=part.start_price,
                daily_volatility=part.daily_volatility,
                spread_bps=part.spread_bps,
                tick_size=part.tick_size,
            )
            for part in self.instruments
        ]

    def terms(self) -> Sequence[SimInstrument]:
        """What the venue needs of the instruments."""
        return [
            SimInstrument(
                symbol_id=part.symbol_id,
                base=part.base,
                quote=part.quote,
                tick_size=part.tick_size,
                lot_step=part.lot_step,
                lot_min=part.lot_min,
                lot_max=part.lot_max,
                max_market_lot=part.max_market_lot,
                min_notional=part.min_notional,
                max_leverage=part.max_leverage,
                maintenance_rate=part.maintenance_rate,
                taker_fee=part.taker_fee,
                maker_fee=part.maker_fee,
                level_lots=part.level_lots,
                level_ticks=part.level_ticks,
            )
            for part in self.instruments
        ]

    def plans(self) -> Sequence[ProviderPlan]:
        """The providers to cast."""
        return [
            ProviderPlan(provider_id=part.id, style=part.style, symbols=part.symbols, count=part.count)
            for part in self.providers
        ]

    def gap_terms(self) -> GapTerms:
        """Bounds of the gap."""
        return GapTerms(**self.gap.model_dump())

    def followers(self) -> Sequence[Follower]:
        """The accounts."""
        return [
            Follower(
                account_id=part.id,
                balance=part.balance,
                leverage=part.leverage,
                flow=part.flow,
                flow_at=part.flow_at,
            )
            for part in self.accounts
        ]

    @property
    def start(self) -> datetime:
        """Market time of the beginning."""
        return self.market.start


def load_scenario(path: Path = DEMO) -> Scenario:
    """Read a scenario. Raises ConfigurationError naming the file, the key and what is wrong with it."""
    try:
        return Scenario.model_validate(tomllib.loads(path.read_text()))
    except OSError as error:
        raise ConfigurationError(f"scenario {path}: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"scenario {path}: not TOML: {error}") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ConfigurationError(f"scenario {path}: {key}{': ' if key else ''}{first['msg']}") from error


def _unique(what: str, names: Iterable[str]) -> None:
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise ValueError(f"{what}: {name!r} is declared {count} times")
