"""Chance in the machine, the database and the files: P5-P10, P12, P15, P17, P22-P25."""

from __future__ import annotations

from random import Random

from simulator.chaos.strikes import registered
from simulator.chaos.world import ChaosWorld, draw_count, draw_seconds, later


@registered("P5")
def clock_steps(world: ChaosWorld, rng: Random) -> str:
    """The wall clock jumps, and is right again later."""
    skew, seconds = rng.choice((-3600.0, -61.0, -1.0, 1.0, 61.0, 3600.0)), draw_seconds(rng, 5, 40)
    world.clock_skew(skew)
    later(seconds, lambda: world.clock_skew(0.0))
    return f"wall clock {skew:+g} s for {seconds:g} s"


@registered("P6")
def suspended(world: ChaosWorld, rng: Random) -> str:
    """The host sleeps; its sockets are dead when it wakes."""
    seconds = draw_seconds(rng, 20, 60)
    for broker in world.brokers.values():
        broker.mute_stream()
    world.feed.drop_stream()
    world.stall(seconds)
    return f"suspended for {seconds:g} s"


@registered("P7")
def disk_full(world: ChaosWorld, rng: Random) -> str:
    """No space for files, nor for the database."""
    seconds = draw_seconds(rng, 3, 20)
    world.disk.fill(seconds)
    if rng.random() < 0.7:
        world.database.lock(seconds)
    return f"disk full for {seconds:g} s"


@registered("P8")
def disk_fails(world: ChaosWorld, rng: Random) -> str:
    """Read-only, EIO, or a torn line."""
    seconds, kind = draw_seconds(rng, 3, 20), rng.choice(("read-only", "EIO", "torn line"))
    match kind:
        case "read-only":
            world.disk.write_protect(seconds)
        case "EIO":
            world.disk.fail(seconds)
        case _:
            world.disk.tear()
            later(seconds, world.disk.mend)
    return f"disk: {kind} ({seconds:g} s)"


@registered("P9")
def database_down(world: ChaosWorld, rng: Random) -> str:
    """Nobody answers."""
    seconds = draw_seconds(rng, 2, 25)
    world.database.take_down(seconds)
    return f"database down for {seconds:g} s"


@registered("P10")
def database_slow(world: ChaosWorld, rng: Random) -> str:
    """Every call takes seconds."""
    by_s, seconds = rng.choice((0.3, 1.5, 5.0)), draw_seconds(rng, 3, 15)
    world.database.slow_down(by_s, seconds)
    return f"database slower by {by_s:g} s for {seconds:g} s"


@registered("P12")
def commit_unanswered(world: ChaosWorld, rng: Random) -> str:
    """Commits whose answer is lost, some of them done."""
    done = [rng.random() < 0.75 for _ in range(draw_count(rng))]
    for committed in done:
        world.database.make_ambiguous(committed=committed)
    return f"the next commits lose their answer, done {done}"


@registered("P15")
def database_locked(world: ChaosWorld, rng: Random) -> str:
    """Another process holds the write lock."""
    seconds = draw_seconds(rng, 0.5, 10)
    world.database.lock(seconds)
    return f"database locked for {seconds:g} s"


@registered("P17")
def loop_stalls(world: ChaosWorld, rng: Random) -> str:
    """Something blocks the event loop."""
    seconds = rng.choice((1.0, 1.0, 3.0, 6.0, 20.0))
    world.stall(seconds)
    return f"loop stalled for {seconds:g} s"


def _lease(world: ChaosWorld, rng: Random, seconds: float) -> str:
    name = rng.choice(list(world.brokers))
    world.database.steal_lease(name, seconds)
    return f"{name}: a rival holds the lease for {seconds:g} s"


@registered("P22")
def rival_daemon(world: ChaosWorld, rng: Random) -> str:
    """A second daemon takes an account for a long time."""
    return _lease(world, rng, draw_seconds(rng, 20, 60))


@registered("P23")
def lease_lost(world: ChaosWorld, rng: Random) -> str:
    """The lease is lost for a moment."""
    return _lease(world, rng, draw_seconds(rng, 1, 10))


@registered("P24")
def alerts_unheard(world: ChaosWorld, rng: Random) -> str:
    """The first sink of alerts is away."""
    seconds = draw_seconds(rng, 5, 60)
    world.alerts_down(seconds)
    return f"alerts unheard for {seconds:g} s"


@registered("P25")
def logs_stuck(world: ChaosWorld, rng: Random) -> str:
    """The pipe of the log is full."""
    seconds = draw_seconds(rng, 5, 60)
    world.logs_blocked(seconds)
    return f"logs blocked for {seconds:g} s"
