"""S8-S12: how much comes at once, from whom, under which key, and whether he hears the answer.

Scenes of the whole agent in virtual time, over the HTTP application that the socket mounts; the socket itself (slow
senders, floods of connections) is in tests/integration/test_webhook_sockets.py, real floods are in `make soak`.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import time
import tracemalloc
from datetime import UTC, datetime

import pytest

from simulator.memory_store.store import MemoryStore
from simulator.simulation import cast
from simulator.simulation.scene import C01, C02, C03, NAMES, Scene, act
from simulator.simulation.server import Request, call
from simulator.webhook_client import signed_headers
from srm_agent.api.intake import Intake
from srm_agent.api.limits import IntakeLimits
from srm_agent.api.signatures import WebhookKey
from srm_agent.clock import ManualClock
from srm_agent.domain.ids import ProviderKey, ProviderKind
from srm_agent.domain.signals import Signal
from tests.faults.letters import MIB, PATH, ask, body, metric, untouched

# ---- S8


@pytest.mark.fault("S8")
def test_a_flood_of_one_provider_costs_the_others_nothing() -> None:
    """10,000 openings a second of alpha: most are 429, bravo trades as fast as before, and alpha's own close passes."""
    count = 1_200

    async def play(scene: Scene) -> None:
        await scene.opened("s1")
        calm = await bravo_trades(scene, "before")
        tracemalloc.start()
        before, _ = tracemalloc.get_traced_memory()
        began = scene.now

        async def flood() -> list[int]:
            answers = []
            for number in range(count):
                status, _ = await scene.open(f"f{number}", symbol_id="ETHUSDT", message_id=f"f{number}")
                answers.append(status)
                await asyncio.sleep(0.0001)
            return answers

        flooding = asyncio.create_task(flood())
        await asyncio.sleep(0.01)
        closed, _ = await scene.send("close", "s1")
        assert closed == 202
        hurried = await bravo_trades(scene, "within")
        assert not flooding.done()
        await scene.until(lambda: not scene.lots(C01), 3)
        answers = await flooding
        after, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        accepted = answers.count(202)
        assert accepted <= IntakeLimits().entries_burst + IntakeLimits().entries_per_s * (scene.now - began) + 1
        assert answers.count(429) == count - accepted > count / 2
        assert max(after, peak) - before < 50 * MIB
        assert hurried < 2 * calm
        await asyncio.sleep(20)

    async def bravo_trades(scene: Scene, name: str) -> float:
        """Seconds from the sending to bravo's position on c03."""
        symbol = "EURUSDT"
        began = scene.now
        status, _ = await scene.open(f"b-{name}", symbol_id=symbol, provider=cast.BRAVO, stop="1.09800")
        assert status == 202
        while not scene.lots(C03, symbol):
            assert scene.now - began < 5
            await asyncio.sleep(0.001)
        took = scene.now - began
        await scene.send("close", f"b-{name}", provider=cast.BRAVO)
        await scene.until(lambda: not scene.lots(C03, symbol), 5)
        scene.price(symbol, "1.10010")
        return took

    act(play, peace_s=5)


@pytest.mark.fault("S8")
async def test_a_flood_of_a_hundred_providers_leaves_exits_and_the_seldom_one_alone() -> None:
    """10,000 openings a second of a hundred providers together: bounded by the house, every close and a quiet
    provider's opening pass at the first try, and what waits is bounded too."""
    clock = ManualClock(datetime(2026, 3, 4, 13, 30, tzinfo=UTC))
    providers = [ProviderKey(ProviderKind.CHANNEL_SOURCE, f"p{number}") for number in range(101)]
    keys = {provider: [WebhookKey(cast.provider_secret(provider))] for provider in providers}
    delivered: list[Signal] = []
    limits = IntakeLimits()
    intake = Intake(
        clock=clock,
        keys=keys,
        log=MemoryStore(clock).signals,
        deliver=delivered.append,
        limits=limits,
        waiting=lambda: 0,
    )

    async def post(provider: ProviderKey, action: str, name: str) -> int:
        more = {"symbol": "X", "side": "buy", "entry": "2", "stop_loss": "1"} if action == "open" else {}
        data = json.dumps(
            {"action": action, "signal_id": name, "issued_at": f"{clock.wall():%Y-%m-%dT%H:%M:%S.%fZ}", **more}
        ).encode()
        at = int(clock.wall().timestamp())
        headers = signed_headers(cast.provider_secret(provider), f"{action}-{name}", at, data)
        status, _ = await intake.receive(provider, headers, data)
        return status

    opens: list[int] = []
    for instant in range(100):
        opens += [await post(provider, "open", f"o{instant}") for provider in providers[:100]]
        assert await post(providers[instant], "close", "held") == 202
        clock.advance(0.01)
    assert await post(providers[100], "open", "seldom") == 202
    assert len(opens) == 10_000
    assert set(opens) == {202, 429}
    assert opens.count(202) <= limits.total_burst + limits.total_per_s
    assert len(delivered) == opens.count(202) + 101


# ---- S9


@pytest.mark.fault("S9")
def test_ten_megabytes_never_hold_the_loop() -> None:
    """10 MB, announced and not, and a compression bomb: 413 and 415, less than 2 MiB held, and no step of the loop
    works for 100 ms (in pieces over sockets: tests/integration/test_webhook_sockets.py)."""

    async def play(scene: Scene) -> float:
        worst, last = 0.0, time.thread_time()

        async def feel() -> None:
            nonlocal worst, last
            while True:
                await asyncio.sleep(0)
                now = time.thread_time()  # of this thread: the load of the machine does not count
                worst, last = max(worst, now - last), now

        assert scene.process.server is not None
        app = scene.process.server._app
        large, now = b"x" * (10 * 1000 * 1000), int(scene.world.clock.wall().timestamp())
        bomb = b"\x1f\x8b" + b"\0" * 40_000
        for data, more, status in (
            (large, {}, 413),
            (large, {"content-length": str(len(large))}, 413),
            (b"", {"content-length": "99999999999999"}, 413),
            (bomb, {"content-encoding": "gzip"}, 415),
        ):
            headers = signed_headers(cast.provider_secret(cast.ALPHA), "large", now, data) | more
            request = Request(method="POST", path=PATH, headers=headers, body=data)
            tracemalloc.start()
            feeling = asyncio.create_task(feel())
            answered, _ = await call(app, request)
            feeling.cancel()
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert answered == status
            assert peak < 2 * MIB
        untouched(scene)
        return worst

    assert act(play) < 0.1


# ---- S10


@pytest.mark.fault("S10")
def test_who_cannot_sign_gets_401_and_nothing_else() -> None:
    """No signature, a wrong one, another provider's key, an edited body, an old stamp, another version: 401 in one
    shape, counted, told at rate, and the provider's own rate is not spent."""

    async def play(scene: Scene) -> None:
        data, now = body(scene), int(scene.world.clock.wall().timestamp())
        good = signed_headers(cast.provider_secret(cast.ALPHA), "m1", now, data)
        refused = await metric(scene, "srm_intake_messages_total")

        async def post(headers: dict[str, str], raw: bytes = data, path: str = PATH) -> tuple[int, str]:
            assert scene.process.server is not None
            status, answer = await scene.process.server.request(
                Request(method="POST", path=path, headers=headers, body=raw)
            )
            return status, answer.decode()

        signature = good["webhook-signature"]
        alone = signature.removeprefix("v1,")
        forged: list[tuple[dict[str, str], bytes, str]] = [
            *(
                ({key: value for key, value in good.items() if key != name}, data, PATH)
                for name in good
                if "hook" in name
            ),
            (dict(good) | {"webhook-signature": f"v1,{'A' * 43}="}, data, PATH),
            (dict(good) | {"webhook-signature": f"v0,{alone}"}, data, PATH),
            (dict(good) | {"webhook-signature": f"v1a,{alone}"}, data, PATH),
            (dict(good) | {"webhook-signature": alone}, data, PATH),
            (dict(good) | {"webhook-id": "m2"}, data, PATH),
            (dict(good) | {"webhook-timestamp": str(now + 1)}, data, PATH),
            (dict(good), data.replace(b"59400", b"59300"), PATH),
            (dict(good), data, "/signals/channel_source/bravo"),
            (dict(good), data, "/signals/channel_source/nobody"),
            (dict(good), data, "/signals/user/alpha"),
            (dict(signed_headers(cast.provider_secret(cast.BRAVO), "m1", now, data)), data, PATH),
            (dict(signed_headers(b"w" * 32, "m1", now, data)), data, PATH),
            (dict(signed_headers(cast.provider_secret(cast.ALPHA), "m1", now - 31, data)), data, PATH),
            (dict(signed_headers(cast.provider_secret(cast.ALPHA), "m1", now + 31, data)), data, PATH),
        ]
        answers = [await post(*one) for one in forged]
        assert {status for status, _ in answers} == {401}
        assert not any(alone in text for _, text in answers)
        unknown = await post(dict(good), data, "/signals/channel_source/nobody")
        wrong = await post(dict(signed_headers(b"w" * 32, "m1", now, data)))
        assert unknown == wrong  # who guesses names of providers learns nothing
        for _ in range(70):
            await post(dict(good) | {"webhook-signature": f"v1,{'A' * 43}="})
        assert await metric(scene, "srm_intake_messages_total") - refused == len(forged) + 72
        await asyncio.sleep(1)
        scene.world.look()
        assert [one.title for one in scene.world.told if "bad signatures" in one.title]
        untouched(scene)
        assert (await post(dict(good)))[0] == 202  # 70 bad ones have not spent alpha's burst of 60

    act(play)


@pytest.mark.fault("S10")
def test_a_captured_message_is_worth_nothing() -> None:
    """A good message played again within its 30 s is the first answer and no second trade; after them it is 401."""

    async def play(scene: Scene) -> None:
        data = body(scene)
        headers = signed_headers(
            cast.provider_secret(cast.ALPHA), "m1", int(scene.world.clock.wall().timestamp()), data
        )
        assert scene.process.server is not None
        server, request = scene.process.server, Request(method="POST", path=PATH, headers=headers, body=data)
        first = await server.request(request)
        assert first[0] == 202
        await scene.until(lambda: bool(scene.lots(C01) and scene.lots(C02)), 10)
        assert [await server.request(request) for _ in range(5)] == [first] * 5
        await asyncio.sleep(31)
        assert (await server.request(request))[0] == 401
        assert len(scene.entries(C01)) == 1

    act(play)


@pytest.mark.fault("S10")
def test_a_stranger_costs_the_same_time_as_a_wrong_signature() -> None:
    """Constant time: an unknown provider and a wrong key are checked by the same number of HMACs and comparisons."""
    counted: list[int] = []

    async def play(scene: Scene) -> None:
        assert scene.process.server is not None
        data, now = body(scene), int(scene.world.clock.wall().timestamp())
        headers = signed_headers(b"w" * 32, "m1", now, data)
        with pytest.MonkeyPatch.context() as patch:
            real, calls = hmac.compare_digest, [0]

            def compare(one: bytes, other: bytes) -> bool:
                calls[0] += 1
                return real(one, other)

            patch.setattr(hmac, "compare_digest", compare)
            for path in (PATH, "/signals/channel_source/nobody"):
                calls[0] = 0
                await scene.process.server.request(Request(method="POST", path=path, headers=headers, body=data))
                counted.append(calls[0])

    act(play)
    assert counted == [1, 1]


# ---- S11


@pytest.mark.fault("S11")
def test_a_key_that_is_revoked_in_mid_flight() -> None:
    """What is being written when the key goes finishes and trades; the next message under it is 401, under the new
    key accepted."""

    async def play(scene: Scene) -> None:
        scene.world.database.slow_down(1.0, 1.5)
        under_way = asyncio.create_task(scene.open("s1"))
        await asyncio.sleep(0.5)
        new = WebhookKey(b"n" * 32)
        scene.agent.daemon._parts.intake.replace_keys(
            {cast.ALPHA: [new], cast.BRAVO: [WebhookKey(cast.provider_secret(cast.BRAVO))]}
        )
        assert (await under_way)[0] == 202
        await scene.until(lambda: bool(scene.lots(C01) and scene.lots(C02)), 10)
        assert (await scene.send("close", "s1"))[0] == 401
        assert scene.lots(C01)
        closing = json.dumps({"action": "close", "signal_id": "s1", "issued_at": scene.stamp()}).encode()
        assert (await scene.post(closing, secret=new.secret, message_id="m-new"))[0] == 202
        await scene.until(lambda: not scene.lots(C01) and not scene.lots(C02), 5)

    act(play, peace_s=5)


# ---- S12


@pytest.mark.fault("S12")
def test_answers_that_never_arrive_double_nothing() -> None:
    """The provider hears nothing and repeats, over kills before, in and after the commit: one entry per follower
    (INV-1), none lost."""

    async def play(scene: Scene) -> None:
        for symbol_id, stop, killed_after_s in (
            ("BTCUSDT", "59400", 0.001),
            ("ETHUSDT", "2970", 0.0025),
            ("EURUSDT", "1.09800", 0.004),
        ):
            name, entry = f"s-{symbol_id}", f"{scene.mid(symbol_id)}"
            data = body(scene, name, symbol=NAMES[symbol_id], entry=entry, stop_loss=stop)
            for attempt in range(8):
                asking = asyncio.create_task(ask(scene.process, scene, data, name))
                await asyncio.sleep(killed_after_s if attempt == 0 else 0.0005 * attempt)
                asking.cancel()  # the provider is gone: what is under way goes on, its answer is for nobody
                if attempt == 0:
                    scene.kill()
                    await asyncio.sleep(2)
                    await scene.start()
                await asyncio.sleep(0.2)
            assert (await ask(scene.process, scene, data, name))[0] == 202
            await scene.until(lambda s=symbol_id: bool(scene.lots(C01, s) and scene.lots(C02, s)), 15)  # type: ignore[misc]
        for connection in (C01, C02):
            assert [one.ticket.symbol_id for one in scene.entries(connection)] == ["BTCUSDT", "ETHUSDT", "EURUSDT"]

    act(play, peace_s=5)
