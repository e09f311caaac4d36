"""Who takes part: accounts, providers, an operator, and the configuration of the agent that serves them."""

from __future__ import annotations

from base64 import b64encode
from decimal import Decimal
from functools import cache
from hashlib import sha256
from pathlib import Path

from simulator.terms import SimAccount
from srm_agent.api.control import Operator
from srm_agent.domain.ids import ConnectionId, ProviderKey, ProviderKind
from srm_agent.settings import Settings, load

CONFIGURATION = Path(__file__).parents[1] / "scenarios" / "simulation.toml"
VENUE = "simulator"
ALPHA = ProviderKey(ProviderKind.CHANNEL_SOURCE, "alpha")
BRAVO = ProviderKey(ProviderKind.CHANNEL_SOURCE, "bravo")
PROVIDERS = (ALPHA, BRAVO)
CONNECTIONS = (ConnectionId("c01"), ConnectionId("c02"), ConnectionId("c03"))
OPERATOR = "olga"


@cache
def settings_of(scope: str, max_open_risk: Decimal, max_drawdown: Decimal) -> Settings:
    """The configuration, read once a process; `scope` is `protection.emergency_scope`."""
    limits = {"limits": {"max_open_risk": max_open_risk}}
    protection = {"emergency_scope": scope, "max_drawdown": max_drawdown}
    return load(CONFIGURATION, {"protection": protection, "policies": {"crypto": limits, "fx": limits}})


def accounts() -> tuple[SimAccount, ...]:
    """Three followers; the third risks far too much, so that protection has work."""
    return tuple(
        SimAccount(account_id=name, api_key=f"key-{name}", secret=f"secret-{name}", balance=balance, leverage=leverage)
        for name, balance, leverage in (
            ("c01", Decimal(10_000), Decimal(20)),
            ("c02", Decimal(50_000), Decimal(20)),
            ("c03", Decimal(5_000), Decimal(50)),
        )
    )


def provider_secret(provider: ProviderKey) -> bytes:
    """The key a provider signs with: a canary, no secret."""
    return sha256(f"canary webhook key of {provider}".encode()).digest()


def operator_token() -> str:
    """A canary as well."""
    return sha256(b"canary token of the operator").hexdigest()


def operators() -> tuple[Operator, ...]:
    """Who may halt and resume."""
    return (Operator.of_token(OPERATOR, operator_token()),)


def secrets() -> tuple[str, ...]:
    """What must never be seen in a log, a table or an alert (INV-16)."""
    keys = [provider_secret(provider) for provider in PROVIDERS]
    return (operator_token(), *(key.hex() for key in keys), *(b64encode(key).decode() for key in keys))
