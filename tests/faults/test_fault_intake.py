"""S1-S7: what the messages of providers can say that must not be followed, at the level of the intake.

Scenes of the whole agent in virtual time, over the HTTP application that the socket mounts.
"""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from collections.abc import Callable
from decimal import Decimal

import pytest

from simulator.simulation.scene import C01, C02, Scene, act
from tests.faults.letters import MIB, ask, body, fields, untouched

CANARY = "canary-of-a-payload"


# ---- S1


def _with(text: str, key: str = "entry") -> Callable[[Scene], bytes]:
    """A good body with that JSON text in the place of one value."""
    return lambda scene: body(scene, **{key: "@@"}).replace(b'"@@"', text.encode())


MALFORMED: dict[str, Callable[[Scene], bytes]] = {
    "half an object": lambda scene: body(scene)[:-7],
    "nothing": lambda scene: b"",
    "no object": lambda scene: b'"open"',
    "bytes that are no text": lambda scene: b"\xff\xfe" + body(scene),
    "trailing text": lambda scene: body(scene) + b"{}",
    "number for text": _with("7", "signal_id"),
    "text for a number": _with('"sixty thousand"'),
    "bool for a number": _with("true"),
    "null for a number": _with("null"),
    "list for a number": _with("[60000]"),
    "missing key": lambda scene: body(scene, side=None),
    "unknown key": lambda scene: body(scene, leverage="100"),
    "duplicate key": lambda scene: body(scene).replace(b"{", b'{"stop_loss":"1",', 1),
    "NaN": _with("NaN"),
    "nan in quotes": _with('"nan"'),
    "Infinity": _with("-Infinity"),
    "1e400": _with("1e400"),
    "1e400 in quotes": _with('"1e400"'),
    "hexadecimal": _with('"0xEA60"'),
    "Unicode digits": lambda scene: json.dumps(fields(scene, entry="\uff16\uff10000"), ensure_ascii=False).encode(),
    "Unicode digits, escaped": lambda scene: body(scene, entry="\uff16\uff10000"),
    "5,000 digits": _with("6" * 5_000),
    "5,000 digits in quotes": _with('"' + "6" * 5_000 + '"'),
    "20,000 deep": lambda scene: b"[" * 20_000 + b"]" * 20_000,
    "100,000 deep": lambda scene: b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "5,000 keys": lambda scene: json.dumps({f"key{number}": 1 for number in range(5_000)}).encode(),
    "a control character": lambda scene: body(scene, "s1\x00"),
}


@pytest.mark.fault("S1")
def test_what_is_no_signal_is_refused_in_little_memory() -> None:
    """Every malformed body gets a 4xx with a code, in less than 2 MiB, without a trace of it in the log; service goes
    on."""

    async def play(scene: Scene) -> None:
        lines = len(scene.world.log_lines)
        for number, (what, make) in enumerate(MALFORMED.items()):
            data = make(scene).replace(b"buy", CANARY.encode())
            tracemalloc.start()
            status, answer = await scene.post(data, message_id=f"odd-{number}")
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert 400 <= status < 500, what
            assert status not in (401, 429), what
            error = answer["error"]
            assert isinstance(error, dict), what
            assert error["code"], what
            assert peak < 2 * MIB, f"{what}: {peak} bytes"
            await asyncio.sleep(0.1)
        untouched(scene)
        told = "\n".join(scene.world.log_lines[lines:])
        assert CANARY not in told
        assert "Traceback" not in told
        await scene.opened("afterwards")

    act(play)


# ---- S2


@pytest.mark.fault("S2")
def test_a_signal_that_comes_again_gets_its_first_answer() -> None:
    """After a second, a day, a kill, and at a second instance: the same bytes, and one entry per follower for ever."""

    async def play(scene: Scene) -> None:
        data = body(scene)
        first = await ask(scene.process, scene, data, "msg")
        assert first[0] == 202
        await scene.until(lambda: bool(scene.lots(C01) and scene.lots(C02)), 10)
        again = [await ask(scene.process, scene, data, "msg")]
        again.append(await ask(scene.process, scene, body(scene, stop_loss="59000"), "msg"))  # edited, under its id
        await asyncio.sleep(1)
        again.append(await ask(scene.process, scene, data, "another-delivery"))
        scene.world.loop.stall(86_400)
        await asyncio.sleep(5)
        again.append(await ask(scene.process, scene, data, "msg"))
        scene.kill()
        await asyncio.sleep(2)
        await scene.start()
        again.append(await ask(scene.process, scene, data, "msg"))
        guest = scene.world.give_birth(guest=True)
        await scene.until(lambda: guest.server is not None and guest.server.listening, 20)
        again.append(await ask(guest, scene, data, "msg"))
        again.append(await ask(guest, scene, body(scene), "yet-another-delivery"))
        await asyncio.sleep(5)
        assert again == [first] * 7
        assert [len(scene.entries(name)) for name in (C01, C02)] == [1, 1]
        assert scene.reasons(C01) == ["ACCEPTED"]

    act(play)


# ---- S3


@pytest.mark.fault("S3")
def test_the_same_trade_under_a_new_id_is_refused_within_the_window() -> None:
    """A twin is DUPLICATE_SIGNAL even when its first has been closed already, its close harms nobody, and another
    trade is none."""

    async def play(scene: Scene) -> None:
        await scene.opened("s1", stop="59400")
        await scene.send("close", "s1")
        await scene.until(lambda: not scene.lots(C01) and not scene.lots(C02), 5)
        await asyncio.sleep(0.5)
        status, _ = await scene.open("s1-again", stop="59400")
        assert status == 202
        await scene.until(lambda: len(scene.reasons(C01)) == len(scene.reasons(C02)) == 2, 5)
        assert scene.reasons(C01)[-1] == "DUPLICATE_SIGNAL"
        assert scene.reasons(C02)[-1] == "DUPLICATE_SIGNAL"
        await scene.send("close", "s1-again")
        await scene.opened("other", stop="59000")
        assert len(scene.entries(C01)) == 2

    act(play, peace_s=5)


# ---- S4


@pytest.mark.fault("S4")
def test_a_close_that_comes_first_is_a_tombstone() -> None:
    """Close or cancel before open: the open is refused, also after a restart, and nothing is ever sent."""

    async def play(scene: Scene) -> None:
        assert (await scene.send("close", "s1"))[0] == 202
        assert (await scene.send("cancel", "s2"))[0] == 202
        assert (await scene.send("close", "s3"))[0] == 202
        await asyncio.sleep(1)
        assert (await scene.open("s1"))[0] == 202
        assert (await scene.open("s2", symbol_id="ETHUSDT"))[0] == 202
        scene.kill()
        await asyncio.sleep(2)
        await scene.start()
        assert (await scene.open("s3", symbol_id="EURUSDT"))[0] == 202
        await scene.until(lambda: len(scene.reasons(C01)) == 3, 10)
        assert set(scene.reasons(C01) + scene.reasons(C02)) == {"CLOSED_BEFORE_OPEN"}
        assert not scene.orders(C01)
        assert not scene.orders(C02)

    act(play, peace_s=5)


@pytest.mark.fault("S4")
def test_a_change_that_comes_before_its_open_is_no_harm() -> None:
    """Modify before open is answered and changes nothing: the open has its own stop at the broker and trades."""

    async def play(scene: Scene) -> None:
        assert (await scene.send("modify", "s1", stop_loss="59900"))[0] == 202
        await asyncio.sleep(1)
        await scene.opened("s1", stop="59400")
        await asyncio.sleep(3)
        held = scene.position(C01)
        assert held is not None
        assert held.stop_loss is not None
        assert held.stop_loss <= Decimal(59400)

    act(play, peace_s=5)


@pytest.mark.fault("S4")
def test_an_open_that_comes_after_its_close_opens_nothing() -> None:
    """Opened, closed, and opened again under the same id: the first answer, and no second entry."""

    async def play(scene: Scene) -> None:
        await scene.opened("s1")
        await scene.send("close", "s1")
        await scene.until(lambda: not scene.lots(C01) and not scene.lots(C02), 5)
        assert (await scene.open("s1"))[0] == 202
        await asyncio.sleep(5)
        assert len(scene.entries(C01)) == 1
        assert not scene.lots(C01)

    act(play, peace_s=5)


# ---- S5


@pytest.mark.fault("S5")
def test_stamps_of_tomorrow_and_yesterday() -> None:
    """3 s in the future is 422, 40 s old is decided SIGNAL_STALE, 29 s old trades, and a close of last week closes."""

    async def play(scene: Scene) -> None:
        status, answer = await scene.open("future", issued_at=scene.stamp(-3.0))
        assert status == 422
        assert "ISSUED_IN_FUTURE" in str(answer)
        assert (await scene.open("old", issued_at=scene.stamp(40.0)))[0] == 202
        await scene.until(lambda: scene.reasons(C01) == ["SIGNAL_STALE"], 5)
        assert not scene.orders(C01)
        await asyncio.sleep(4)
        await scene.opened("young", issued_at=scene.stamp(29.0))
        assert (await scene.send("close", "young", issued_at=scene.stamp(7 * 86_400.0)))[0] == 202
        await scene.until(lambda: not scene.lots(C01) and not scene.lots(C02), 5)

    act(play, peace_s=5)


@pytest.mark.fault("S5")
def test_an_open_grows_old_while_it_waits() -> None:
    """Fresh at its receipt, decided 40 s later because the database was away: SIGNAL_STALE, nothing is sent."""

    async def play(scene: Scene) -> None:
        scene.world.database.slow_down(0.5, 0.6)
        waiting = asyncio.create_task(scene.open("s1", issued_at=scene.stamp(1.0)))
        await asyncio.sleep(0.55)
        scene.world.database.lock(40)
        assert (await waiting)[0] in (202, 503)
        await asyncio.sleep(45)
        assert not scene.entries(C01)
        assert "ACCEPTED" not in scene.reasons(C01)

    act(play, peace_s=5)


# ---- S6


@pytest.mark.fault("S6")
def test_no_entry_leaves_without_a_stop_that_can_be_meant() -> None:
    """Wrong side, at the entry, none, 0.1 pip, 10,000 pips, a target on the losing side: 422 or a reason, no order."""

    async def play(scene: Scene) -> None:
        sent: dict[str, tuple[int, str]] = {}
        for name, more, status, word in (
            ("wrong-side", {"stop_loss": "60600"}, 422, "STOP_WRONG_SIDE"),
            ("wrong-side-short", {"side": "sell"}, 422, "STOP_WRONG_SIDE"),
            ("at-entry", {"stop_loss": "60000"}, 422, "STOP_WRONG_SIDE"),
            ("zero", {"stop_loss": "0"}, 422, "FIELD_INVALID"),
            ("target", {"take_profit": "59500"}, 422, "TARGET_WRONG_SIDE"),
            ("none", {"stop_loss": None}, 202, "STOP_MISSING"),
            ("a-tenth-of-a-pip", {"stop_loss": "59999.9"}, 202, "STOP_TOO_CLOSE"),
            ("ten-thousand-pips", {"stop_loss": "50000"}, 202, "STOP_TOO_FAR"),
            # Right when it was written; the market has passed it since.
            ("passed", {"entry": "61000", "stop_loss": "60500"}, 202, "STOP_WRONG_SIDE"),
        ):
            sent[name] = (status, word)
            answered, answer = await scene.post(body(scene, name, **more), message_id=name)
            assert answered == status, (name, answer)
            if status == 422:
                assert word in str(answer), (name, answer)
            await asyncio.sleep(0.5)
        reasons = {
            str(one.signal_id).rpartition("/")[2]: one.reason.value
            for one in scene.world.seen.decisions.values()
            if one.connection_id == C01
        }
        assert reasons == {name: word for name, (status, word) in sent.items() if status == 202}
        assert not scene.orders(C01)
        assert not scene.orders(C02)

    act(play, peace_s=3)


# ---- S7


@pytest.mark.fault("S7")
def test_absurd_lots_and_symbols_that_are_none_of_ours() -> None:
    """Lots of 0, -1 and 1e9 are 422; unknown, suffixed, lower-case and foreign symbols are decided and refused."""

    async def play(scene: Scene) -> None:
        for lot in ("0", "-1", "1e9", "0.00000000001"):
            status, answer = await scene.post(body(scene, f"lot{lot}", lot=lot), message_id=f"lot{lot}")
            assert status == 422, (lot, answer)
            assert "lot" in str(answer)
        symbols = ("DOGE/USDT:USDT", "BTC/USDT:USDT.m", "BTCUSDT", "btc/usdt:usdt", "EURUSD", "#BTC")
        for number, symbol in enumerate(symbols):
            status, answer = await scene.post(body(scene, f"s{number}", symbol=symbol), message_id=f"m{number}")
            assert status == 202, (symbol, answer)
        status, _ = await scene.post(body(scene, "s9", symbol="BTC/USDT; DROP"), message_id="m9")
        assert status == 422
        await scene.until(lambda: len(scene.reasons(C01)) == len(symbols), 10)
        assert set(scene.reasons(C01) + scene.reasons(C02)) == {"INSTRUMENT_UNKNOWN"}
        assert not scene.orders(C01)

    act(play, peace_s=3)
