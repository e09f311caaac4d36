"""Followers as the venue sees them: accounts with a balance, and money that comes and goes without a trade."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from simulator.credentials import VenueKeys
from simulator.providers import Run
from simulator.terms import SimAccount


@dataclass(frozen=True, slots=True, kw_only=True)
class Follower:
    """One follower's account. `flow` is a deposit (+) or withdrawal (-) in USDT at the share `flow_at` of the run."""

    account_id: str
    balance: Decimal
    leverage: Decimal = Decimal(10)
    flow: Decimal | None = None
    flow_at: float = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """A cash flow that is due: amount in USDT, deposit positive."""

    account_id: str
    amount: Decimal
    at_ms: int


def open_accounts(followers: Sequence[Follower], keys: Mapping[str, VenueKeys]) -> list[SimAccount]:
    """The venue's accounts of these followers. Raises KeyError for a follower without keys."""
    return [
        SimAccount(
            account_id=follower.account_id,
            api_key=keys[follower.account_id].api_key,
            secret=keys[follower.account_id].secret,
            balance=follower.balance,
            leverage=follower.leverage,
        )
        for follower in followers
    ]


class CashFlows:
    """The flows of a run, each handed out once when its time has come."""

    def __init__(self, followers: Sequence[Follower], run: Run) -> None:
        flows = [
            Flow(account_id=follower.account_id, amount=follower.flow, at_ms=run.at(follower.flow_at))
            for follower in followers
            if follower.flow
        ]
        self._waiting = sorted(flows, key=lambda flow: (flow.at_ms, flow.account_id))

    def due(self, now_ms: int) -> list[Flow]:
        """Flows up to this market time that were not handed out before, oldest first."""
        due = [flow for flow in self._waiting if flow.at_ms <= now_ms]
        self._waiting = self._waiting[len(due) :]
        return due
