"""What the follower's policy and equity allow a stop in force: where the rooms of risk and execution meet."""

from __future__ import annotations

from decimal import Decimal

from srm_agent.account import Account
from srm_agent.domain.accounts import ConnectionState
from srm_agent.domain.policies import Policy, StopPolicy
from srm_agent.domain.trades import Leg


def stop_policy_of(account: Account, leg: Leg) -> StopPolicy:
    """How the leg's stop may change; the strict default while the terms of its symbol are not known."""
    policy = _policy(account, leg)
    return StopPolicy() if policy is None else policy.stops


def risk_cap_of(account: Account, leg: Leg) -> Decimal | None:
    """INV-11: equity x max_risk, money in settle currency; None where that is not known, so that nothing is widened.

    Only an ACTIVE account knows its equity well enough, and only in its own currency.
    """
    policy, equity, snapshot = _policy(account, leg), account.equity(), account.watch.snapshot
    if policy is None or equity is None or snapshot is None or account.state() is not ConnectionState.ACTIVE:
        return None
    if account.market.instruments[leg.symbol].settle_currency != snapshot.currency:
        return None
    return equity.value * policy.limits.max_risk


def _policy(account: Account, leg: Leg) -> Policy | None:
    instrument = account.market.instruments.get(leg.symbol)
    return None if instrument is None else account.member.policies[instrument.asset_class].policy
