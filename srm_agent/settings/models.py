"""Every key of the configuration file, with its unit, default and meaning."""

from __future__ import annotations

from decimal import Decimal
from typing import Literal
from zoneinfo import ZoneInfo

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from srm_agent.domain.ids import ProviderKey, ProviderKind
from srm_agent.domain.instrument import AssetClass
from srm_agent.domain.policies import CopySettings, SizeMode
from srm_agent.settings.numbers import Fraction, NotNegative, Number, Positive, StrictModel
from srm_agent.settings.policy_models import PoliciesSettings

IDENTIFIER = r"^[A-Za-z0-9_.-]{1,40}$"


class AgentSettings(StrictModel):
    """The process itself."""

    name: str = Field("srm", pattern=IDENTIFIER, description="name of this agent in logs, leases and audit rows")
    data_dir: str = Field("var", description="directory of the halt latch and, by default, the database")
    credentials_dir: str | None = Field(
        None, description="directory of secret files; $CREDENTIALS_DIRECTORY (systemd) or --credentials override it"
    )
    language: Literal["en", "id"] = Field("en", description="language of explanations: en, id")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="least severe line logged")
    log_format: Literal["json", "console"] = Field("json", description="json for machines, console for people")
    first_chunk: int = Field(8, ge=1, le=100, description="intents committed before the first order of a signal leaves")
    chunk: int = Field(100, ge=1, le=1000, description="intents per transaction after that")
    send_deadline_s: Positive = Field(Decimal(2), description="seconds after its intent in which an order may be sent")
    guard_after: int = Field(
        4, ge=0, le=100, description="crashes in 10 minutes after which a start takes exits only; 0 is never"
    )


class StoreSettings(StrictModel):
    """The database."""

    url: str = Field("sqlite:///var/srm.db", description="sqlite:///relative.db or sqlite:////absolute.db")
    table_prefix: str = Field("", pattern=r"^[a-z0-9_]{0,16}$", description="prefix of all tables, e.g. sp_")

    @field_validator("url")
    @classmethod
    def _sqlite_for_now(cls, value: str) -> str:
        if not value.startswith("sqlite:///"):
            raise ValueError("must start with sqlite:/// (MySQL comes with the attached platform, see docs)")
        if value.removeprefix("sqlite:///") in ("", ":memory:"):
            raise ValueError("must name a file, e.g. sqlite:///var/srm.db: a database in memory forgets everything")
        return value


class IntakeSettings(StrictModel):
    """The signed webhook and the control API."""

    host: str = Field("127.0.0.1", description="address to listen on; anything but loopback needs allow_remote")
    port: int = Field(8787, ge=0, le=65535, description="port to listen on, 0 picks a free one")
    allow_remote: bool = Field(False, description="listen beyond loopback (put TLS in front of it)")
    rate_per_s: Positive = Field(Decimal(50), description="messages per second and provider before 429")
    burst: int = Field(100, ge=1, description="messages a provider may send at once")
    total_per_s: Positive = Field(
        Decimal(10),
        description="opens a second of all providers together (four times as a burst); then who sends most waits",
    )
    max_waiting: int = Field(1000, ge=1, description="messages in work before 503")


class AlertSettings(StrictModel):
    """Who is told. Every alert is in the log and in data_dir/alerts.jsonl; these places get it as well, as JSON."""

    url: str | None = Field(
        None, description="https address that takes alerts by POST (http for loopback); or file alerts.url, if secret"
    )
    second_url: str | None = Field(
        None, description="asked when the first does not take an alert at once; or file alerts.second.url"
    )
    level: Literal["notice", "warning", "page"] = Field("warning", description="least grave alert that is posted")
    allow_private: bool = Field(False, description="the addresses may be private; link-local ones never may")
    timeout_s: Positive = Field(Decimal(2), le=Decimal(10), description="seconds before a try counts as failed")
    repeat_s: Positive = Field(Decimal(60), description="a storm of one title is told at most so often, with its count")
    max_waiting: int = Field(1000, ge=10, le=100_000, description="alerts kept while no address takes them")


class ProtectionSettings(StrictModel):
    """When everything is closed. These are hard limits: no score or model changes them."""

    emergency_scope: Literal["account", "own"] = Field(
        description="REQUIRED: what an emergency close touches: every position of the account, or only ours"
    )
    max_drawdown: Fraction = Field(
        Decimal("0.20"), description="fraction of the high-water mark that closes everything"
    )
    daily_loss: Fraction | None = Field(None, description="fraction of the day's base that stops entries for the day")
    daily_base: Literal["balance", "equity", "larger"] = Field("larger", description="base of the daily loss")
    day_zone: str = Field("UTC", description="time zone in which a trading day begins, IANA name")
    equity_max_age_s: Positive = Field(Decimal(5), description="seconds after which equity is unknown: no entries")
    close_interval_s: Positive = Field(Decimal("0.5"), description="seconds between passes of an emergency close")

    @field_validator("day_zone")
    @classmethod
    def _a_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ValueError, OSError):
            raise ValueError(f"must be an IANA time zone such as UTC or Asia/Jakarta, was {value!r}") from None
        return value


class MarketSettings(StrictModel):
    """Indicators."""

    atr_period: int = Field(14, ge=2, le=200, description="bars of Wilder's average true range")
    atr_timeframe_s: int = Field(900, ge=60, le=86400, description="seconds of a bar of the ATR")


class VenueSettings(StrictModel):
    """A venue: where quotes come from and orders go."""

    adapter: Literal["ccxt"] = Field("ccxt", description="which plug")
    exchange: str = Field("bybit", pattern=r"^[a-z0-9]{2,30}$", description="class in ccxt; only bybit trades")
    environment: Literal["live", "testnet", "demo", "url"] = Field(
        "testnet", description="live, the venue's testnet or demo trading, or url for a server of your own"
    )
    base_url: str | None = Field(None, description="environment = url: http://127.0.0.1:18080")
    timeout_s: Positive = Field(Decimal(5), description="seconds before a request counts as unanswered")
    requests_per_s: Positive = Field(
        Decimal(10), ge=Decimal("0.5"), le=Decimal(1000), description="request budget per account"
    )
    exit_reserve: int = Field(5, ge=1, description="requests of the budget that only exits may use")

    @model_validator(mode="after")
    def _url_needs_a_url(self) -> VenueSettings:
        if (self.environment == "url") != (self.base_url is not None):
            raise ValueError("base_url belongs to environment = url, and only to it")
        return self


class InstrumentSettings(StrictModel):
    """What the venue does not say about a symbol."""

    asset_class: Literal["fx", "metal", "index", "crypto"] | None = Field(
        None, description="overrides the venue's class"
    )
    pip_size: Positive | None = Field(None, description="price distance of one pip, for thresholds in pips")


class ProviderSettings(StrictModel):
    """Who may send signals; the key is a file provider.<id>.key in the credentials directory."""

    kind: Literal["channel_source", "user"] = Field("channel_source", description="as in the platform's columns")
    name: str = Field("", description="for people")


class ConnectionSettings(StrictModel):
    """One follower's account at one venue."""

    id: str = Field(pattern=IDENTIFIER, description="name of the connection; its secrets are connection.<id>.*")
    follower: str = Field(pattern=IDENTIFIER, description="the person who copies")
    owner: str | None = Field(None, description="who owns several accounts together; the follower by default")
    venue: str = Field(description="a key of [venues]")
    providers: tuple[str, ...] = Field(min_length=1, description="providers whose signals are copied")
    size_mode: Literal["RISK_PERCENT", "FIXED"] = Field("RISK_PERCENT", description="how the base lot is found")
    risk_per_trade: Fraction = Field(Decimal("0.01"), description="of equity, lost at the provider's stop")
    fixed_lot: Positive | None = Field(None, description="size_mode = FIXED: the lot")
    risk_multiplier: NotNegative = Field(Decimal(1), description="the follower's own factor")
    max_lot: Positive | None = Field(None, description="largest lot of one position")
    max_positions: int | None = Field(None, ge=1, description="open positions at most")
    max_risk: Fraction | None = Field(None, description="overrides policies.*.limits.max_risk for this connection")
    max_open_risk: Fraction | None = Field(None, description="overrides policies.*.limits.max_open_risk")
    max_drawdown: Fraction | None = Field(None, description="overrides protection.max_drawdown for this connection")

    @model_validator(mode="after")
    def _fixed_needs_a_lot(self) -> ConnectionSettings:
        if (self.size_mode == "FIXED") != (self.fixed_lot is not None):
            raise ValueError("fixed_lot belongs to size_mode = FIXED, and only to it")
        return self

    def copy_settings(self) -> CopySettings:
        """The domain's value."""
        return CopySettings(
            size_mode=SizeMode(self.size_mode),
            risk_per_trade=self.risk_per_trade,
            fixed_lot=self.fixed_lot,
            risk_multiplier=self.risk_multiplier,
            max_lot=self.max_lot,
            max_positions=self.max_positions,
        )


class LearningSettings(StrictModel):
    """The first rung of learning, before there are fills to learn from: a scale for slippage, a prior for scores."""

    slippage_mean: Positive = Field(Decimal("0.6"), description="expected slippage in units of the scale")
    slippage_upper: Positive = Field(Decimal("2.5"), description="upper bound in units of the scale")
    half_life_weeks: Positive = Field(
        Decimal(26), description="weeks of market time in which a trade loses half its weight"
    )


class Settings(BaseSettings):
    """The whole configuration."""

    model_config = SettingsConfigDict(
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        env_prefix="SRM_",
        env_nested_delimiter="__",
        nested_model_default_partial_update=False,
    )

    agent: AgentSettings = AgentSettings()
    store: StoreSettings = StoreSettings()
    intake: IntakeSettings = IntakeSettings()
    alerts: AlertSettings = AlertSettings()
    protection: ProtectionSettings
    market: MarketSettings = MarketSettings()
    learning: LearningSettings = LearningSettings()
    policies: PoliciesSettings = Field(default_factory=lambda: PoliciesSettings.model_validate({}))
    venues: dict[str, VenueSettings] = Field(min_length=1)
    instruments: dict[str, InstrumentSettings] = Field(default_factory=dict)
    providers: dict[str, ProviderSettings] = Field(min_length=1)
    connections: tuple[ConnectionSettings, ...] = Field(min_length=1)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment over file; no dotenv, no secrets in settings."""
        return (env_settings, init_settings)

    @model_validator(mode="after")
    def _references(self) -> Settings:
        seen: dict[str, int] = {}
        for index, connection in enumerate(self.connections):
            where = f"connections[{index}] ({connection.id})"
            if connection.id in seen:
                raise ValueError(f"{where}: id is used twice, give each connection its own")
            seen[connection.id] = index
            if connection.venue not in self.venues:
                raise ValueError(f"{where}: venue {connection.venue!r} is not one of [venues]: {sorted(self.venues)}")
            for provider in connection.providers:
                if provider not in self.providers:
                    raise ValueError(
                        f"{where}: provider {provider!r} is not one of [providers]: {sorted(self.providers)}"
                    )
        for symbol, instrument in self.instruments.items():
            if instrument.asset_class == "crypto" and instrument.pip_size is None and self._uses_pips("crypto"):
                raise ValueError(
                    f"instruments.{symbol!r}: policies.crypto has thresholds in pips, so it needs a pip_size"
                )
        return self

    def _uses_pips(self, asset_class: str) -> bool:
        return '"pips":"' in self.policies.of(AssetClass(asset_class)).model_dump_json(exclude_none=True)

    def provider_key(self, provider: str) -> ProviderKey:
        """The key of a configured provider."""
        return ProviderKey(ProviderKind(self.providers[provider].kind), provider)


__all__ = ["ConnectionSettings", "Number", "ProtectionSettings", "Settings", "VenueSettings"]
