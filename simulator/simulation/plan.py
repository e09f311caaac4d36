"""What a seed has in store: drawn before the world begins, so that nothing the agent does can change it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from decimal import Decimal
from random import Random

from simulator.seeds import stream
from srm_agent.failpoints import CRASH_POINTS

QUIET_START_S = 6.0
FLAT_FOR_S = (6.0, 20.0)
"""After an operator's close of an account: how long until he resumes it."""
NEAR_S, TWIN_S = 1.5, 0.4
"""So long before a halt a signal may come that aims at it, so long after a signal its twin."""


HALTS = (
    ("all", ""), ("connection", "c01"), ("connection", "c02"), ("provider", "alpha"), ("symbol", "BTC/USDT:USDT"),
)  # fmt: skip
"""What an operator halts: scope and key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What kind of days to draw. The default is what `make test` runs; mutants have profiles aimed at them."""

    name: str = "default"
    signals: int = 20
    faults: int = 10
    fault_ids: tuple[str, ...] = ()
    """Only these; empty: all that can happen by chance."""
    crash_share: float = 0.5
    """Share of seeds in which the agent is killed, and as large a share again of those twice or more."""
    crash_points: tuple[str, ...] = ("CP1", "CP2", "CP3", "CP4", "CP5", "CP6", "CP7", "CP8", "CP9", "CP12", "CP14")
    foreign_share: float = 0.25
    """Share of seeds in which a human trades on an account too."""
    operator_share: float = 0.35
    """Share of seeds in which an operator halts something and resumes it."""
    halts: int = 1
    """How many halts such a seed has."""
    halt_scopes: tuple[str, ...] = ("all", "connection", "provider", "symbol")
    opens_at_halts: float = 0.0
    """Share of the signals that come within NEAR_S before one of the halts (if there are any)."""
    flattens: int = 0
    """How often an operator closes an account, and resumes it later."""
    second_share: float = 0.1
    """Share of seeds in which a second daemon is started on the same accounts, with a disk of its own (P22)."""
    late_share: float = 0.1
    """Share of seeds whose brokers execute a request however late it arrives, as a bridge to MetaTrader does."""
    max_open_risk: Decimal = Decimal("0.5")
    """Of all open legs of an account together, a fraction of equity: the hard cap of the agent's configuration."""
    max_drawdown: Decimal = Decimal("0.20")
    """At which the agent has to close an account, a fraction of the high-water mark."""
    twins_share: float = 0.0
    """Share of the signals after which the other provider has the same idea within TWIN_S."""
    busy_s: float = 140.0
    """Seconds in which things go wrong."""
    peace_s: float = 70.0
    """Seconds in which nothing more is broken: all must come right by their end."""

    @property
    def length_s(self) -> float:
        """Virtual seconds of a seed."""
        return self.busy_s + self.peace_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Crash:
    """A kill: at a time, or (from that time on) at the next arrival at a crash point."""

    at: float
    point: str = ""
    rest_s: float = 2.0
    """How long until systemd starts it again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A seed's appointments, in seconds of the loop."""

    seed: int
    profile: Profile
    speed: float
    """Market seconds per second."""
    scope: str
    crashes: tuple[Crash, ...]
    stops: tuple[float, ...]
    """SIGTERMs."""
    opens: tuple[float, ...]
    halts: tuple[tuple[float, float, str, str], ...]
    """(from, to, scope, key)."""
    humans: tuple[float, ...]
    flattens: tuple[tuple[float, float, str], ...] = ()
    """(from, not resumed before, connection): an operator closes an account."""
    second_at: float | None = None
    late: bool = False
    """The brokers have no receive window."""
    notes: tuple[str, ...] = field(default=())


def draw(seed: int, profile: Profile) -> Plan:
    """The plan of a seed."""
    rng = stream(seed, "plan")
    busy = profile.busy_s

    def when() -> float:
        return rng.uniform(QUIET_START_S, busy)

    plan = Plan(
        seed=seed,
        profile=profile,
        speed=rng.choice((20.0, 30.0, 60.0)),
        scope=rng.choice(("account", "own")),
        crashes=_crashes(rng, profile),
        stops=(when(),) if rng.random() < 0.15 else (),
        opens=tuple(sorted(when() for _ in range(profile.signals))),
        halts=_halts(rng, profile),
        humans=tuple(sorted(when() for _ in range(rng.randint(1, 2)))) if rng.random() < profile.foreign_share else (),
        second_at=when() if rng.random() < profile.second_share else None,
    )
    aimed = stream(seed, "aim")  # of its own: what a profile aims at leaves the rest of its seeds as they are
    return replace(
        plan,
        late=aimed.random() < profile.late_share,
        opens=_near(aimed, plan, profile),
        flattens=_flattens(aimed, profile),
    )


def _near(rng: Random, plan: Plan, profile: Profile) -> tuple[float, ...]:
    """The signals' times, some of them moved to just before a halt."""
    if not (profile.opens_at_halts and plan.halts):
        return plan.opens
    begins = [begin for begin, *_ in plan.halts]
    moved = [
        rng.choice(begins) - rng.uniform(0.0, NEAR_S) if rng.random() < profile.opens_at_halts else at
        for at in plan.opens
    ]
    return tuple(sorted(moved))


def _flattens(rng: Random, profile: Profile) -> tuple[tuple[float, float, str], ...]:
    closes = []
    for _ in range(profile.flattens):
        begin = rng.uniform(QUIET_START_S + 4, profile.busy_s)
        closes.append((begin, begin + rng.uniform(*FLAT_FOR_S), rng.choice(("c01", "c02", "c03"))))
    return tuple(sorted(closes))


def _crashes(rng: Random, profile: Profile) -> tuple[Crash, ...]:
    if rng.random() >= profile.crash_share:
        return ()
    count = 1
    while count < 4 and rng.random() < profile.crash_share:
        count += 1
    points = [point for point in profile.crash_points if point in CRASH_POINTS]
    crashes = []
    for _ in range(count):
        at = rng.uniform(QUIET_START_S, profile.busy_s - 5)
        point = rng.choice(points) if points and rng.random() < 0.6 else ""
        crashes.append(Crash(at=at, point=point, rest_s=rng.choice((2.0, 2.0, 2.0, 8.0, 25.0))))
    return tuple(sorted(crashes, key=lambda crash: crash.at))


def _halts(rng: Random, profile: Profile) -> tuple[tuple[float, float, str, str], ...]:
    if rng.random() >= profile.operator_share:
        return ()
    halts = []
    for _ in range(profile.halts):
        scope, key = rng.choice([one for one in HALTS if one[0] in profile.halt_scopes])
        begin = rng.uniform(QUIET_START_S, max(QUIET_START_S + 1, profile.busy_s - 30))
        halts.append((begin, begin + rng.uniform(10, 40), scope, key))
    return tuple(sorted(halts))
