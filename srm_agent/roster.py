"""Who copies whom, with which settings: the configuration as the flow reads it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal

from srm_agent.domain.ids import ConnectionId, FollowerId, OwnerId, ProviderKey
from srm_agent.domain.instrument import AssetClass
from srm_agent.domain.policies import CopySettings, PolicyInForce
from srm_agent.settings.models import ConnectionSettings, Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One connection: whose it is, whom it copies, by which policies."""

    connection_id: ConnectionId
    follower: FollowerId
    owner: OwnerId
    venue: str
    providers: frozenset[ProviderKey]
    copy: CopySettings
    policies: Mapping[AssetClass, PolicyInForce]
    max_drawdown: Decimal


class Roster:
    """All members; followers of a provider in a fair, rotating order (nobody is always last)."""

    def __init__(self, members: Iterable[Member]) -> None:
        self.members: dict[ConnectionId, Member] = {member.connection_id: member for member in members}
        self._followers: dict[ProviderKey, list[Member]] = {}
        self._turn: dict[ProviderKey, int] = {}
        self.replace(())

    def replace(self, members: Iterable[Member]) -> None:
        """Other settings for members that are here already; turns go on."""
        self.members.update((member.connection_id, member) for member in members)
        self._followers.clear()
        for member in self.members.values():
            for provider in sorted(member.providers):
                self._followers.setdefault(provider, []).append(member)

    def followers(self, provider: ProviderKey) -> list[Member]:
        """Who copies this provider; the order rotates with every call."""
        members = self._followers.get(provider, [])
        if not members:
            return []
        turn = self._turn.get(provider, 0) % len(members)
        self._turn[provider] = turn + 1
        return members[turn:] + members[:turn]


def roster_of(settings: Settings) -> Roster:
    """The configuration's connections as members."""
    shared = {
        asset_class: PolicyInForce(settings.policies.of(asset_class).domain(asset_class.value))
        for asset_class in AssetClass
    }
    return Roster(_member(settings, connection, shared) for connection in settings.connections)


def _member(settings: Settings, connection: ConnectionSettings, shared: Mapping[AssetClass, PolicyInForce]) -> Member:
    return Member(
        connection_id=ConnectionId(connection.id),
        follower=FollowerId(connection.follower),
        owner=OwnerId(connection.owner or connection.follower),
        venue=connection.venue,
        providers=frozenset(settings.provider_key(provider) for provider in connection.providers),
        copy=connection.copy_settings(),
        policies=_own_policies(connection, shared),
        max_drawdown=settings.protection.max_drawdown if connection.max_drawdown is None else connection.max_drawdown,
    )


def _own_policies(
    connection: ConnectionSettings, shared: Mapping[AssetClass, PolicyInForce]
) -> Mapping[AssetClass, PolicyInForce]:
    if connection.max_risk is None and connection.max_open_risk is None:
        return shared
    own = {}
    for asset_class, in_force in shared.items():
        limits = in_force.policy.limits
        limits = replace(
            limits,
            max_risk=limits.max_risk if connection.max_risk is None else connection.max_risk,
            max_open_risk=limits.max_open_risk if connection.max_open_risk is None else connection.max_open_risk,
        )
        own[asset_class] = PolicyInForce(replace(in_force.policy, limits=limits))
    return own
