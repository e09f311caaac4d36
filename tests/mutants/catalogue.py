"""Single changes of execution and protection that would lose money, each with the kind of days that must notice it."""

from __future__ import annotations

from dataclasses import dataclass

from tests.mutation import Mutant


@dataclass(frozen=True, slots=True, kw_only=True)
class Hunted:
    """A mutant and the profile (simulator/simulation/profiles.py) aimed at it. `why`: what the change does."""

    mutant: Mutant
    profile: str
    why: str
    quick: bool = False
    """It is noticed within a few seeds: part of the sample."""

    @property
    def name(self) -> str:
        """The mutant's."""
        return self.mutant.name


def _hunted(name: str, profile: str, why: str, path: str, old: str, new: str, *, quick: bool = False) -> Hunted:
    return Hunted(mutant=Mutant(name=name, path=path, old=old, new=new), profile=profile, why=why, quick=quick)


CATALOGUE: tuple[Hunted, ...] = (
    _hunted(
        "no-reservation",
        "caps",
        "an entry under way counts for nothing until it is filled: two signals use the same budget",
        "fan_out.py",
        "    legs = list(account.desk.open_legs())\n",
        "    legs = [leg for leg in account.desk.open_legs() if leg.state is LegState.OPEN]\n",
    ),
    _hunted(
        "finality-shortened",
        "lost",
        "an order that cannot be found is given up at once instead of after the broker's finality time",
        "execution/tickets.py",
        "    return Finality(capabilities.finality_s, max(LEAST_ABSENCES, capabilities.absences))",
        "    return Finality(0.0, max(LEAST_ABSENCES, capabilities.absences))",
        quick=True,
    ),
    _hunted(
        "one-look-is-enough",
        "lost",
        "one look-up that says ABSENT ends a doubt",
        "execution/tickets.py",
        "    return Finality(capabilities.finality_s, max(LEAST_ABSENCES, capabilities.absences))",
        "    return Finality(capabilities.finality_s, 1)",
    ),
    _hunted(
        "no-send-deadline",
        "undelivered",
        "an entry leaves however long ago it was decided",
        "execution/tickets.py",
        "    return now > intent.deadline",
        "    return False",
    ),
    _hunted(
        "unknown-is-rejected",
        "replies",
        "an answer that proves nothing is taken for a refusal",
        "execution/tickets.py",
        "return replace(ticket, intent=sent_for_good, state=OrderState.UNKNOWN,",
        "return replace(ticket, intent=sent_for_good, state=OrderState.REJECTED,",
        quick=True,
    ),
    _hunted(
        "resent-after-timeout",
        "replies",
        "an entry without an answer is sent again, under another id",
        "execution/sender.py",
        '            failpoints.reached("CP5")\n',
        '            failpoints.reached("CP5")\n'
        "            if report.outcome is Outcome.UNKNOWN and intent.purpose is OrderPurpose.ENTRY:\n"
        "                from dataclasses import replace\n"
        "                again = replace(intent, client_id=type(intent.client_id)(intent.client_id[:-1] + '9'))\n"
        "                report = await self._broker.submit(again)\n",
    ),
    _hunted(
        "soft-halt",
        "halts",
        "a halt refuses new decisions, but what was decided before it still leaves",
        "flow.py",
        "        if self.draining or account.state() is not ConnectionState.ACTIVE or self._halted(account, intent):\n",
        "        if self.draining:\n",
    ),
    _hunted(
        "halt-holds-exits",
        "halts",
        "the gate before the wire asks of exits what it asks of entries",
        "flow.py",
        "        if intent.purpose is not OrderPurpose.ENTRY:\n            return None\n        if self.draining or",
        "        if self.draining or",
    ),
    _hunted(
        "halt-only-in-memory",
        "halted crashes",
        "a halt is written neither to the file nor to the database",
        "protection/halts.py",
        '        self._unsaved[key] = halt\n        failpoints.reached("CP8")\n        self._to_disk()\n',
        '        failpoints.reached("CP8")\n',
    ),
    _hunted(
        "one-pass-flatten",
        "closes",
        "an emergency close sends its closes once and believes that they did it",
        "protection/emergency_close.py",
        "            while not await self._one_pass():\n                await self._rest()\n",
        "            await self._one_pass()\n            await self._rest()\n",
    ),
    _hunted(
        "failed-lookup-is-absent",
        "cut off",
        "a look-up that failed counts like one that said ABSENT",
        "execution/chaser.py",
        "            return\n        self._on_report(report)\n",
        "            report = OrderReport(client_id=ticket.intent.client_id, outcome=Outcome.ABSENT)\n"
        "        self._on_report(report)\n",
    ),
    _hunted(
        "stop-not-read-back",
        "stops",
        "a position that the broker shows without a stop counts as covered",
        "execution/stop_rules.py",
        "    if not position.stop_loss:\n        return Cover.MISSING\n",
        "    if not position.stop_loss:\n        return Cover.WHOLE\n",
        quick=True,
    ),
    _hunted(
        "stop-follows-provider",
        "stops",
        "a provider may move a stop away from entry although the policy does not allow it",
        "execution/moves.py",
        "        if self._desk.stop_policy(leg).allow_widening:\n",
        "        if True:\n",
    ),
    _hunted(
        "close-opens-opposite",
        "partial fills",
        "a close is an order of the other side, not reduce-only",
        "execution/exits.py",
        "            reduce=reference,\n",
        "            reduce=None,\n",
    ),
    _hunted(
        "exit-not-spilt",
        "database",
        "an exit that the database does not take leaves without a trace",
        "execution/exit_lane.py",
        "            self._spill.write(intent)\n",
        "            pass\n",
    ),
    _hunted(
        "journal-after-wire",
        "slow database",
        "decisions and intents are written beside the sending, not before it",
        "flow.py",
        "                return await self._parts.journal.record(decisions, intents, legs)\n",
        "                task = asyncio.ensure_future(self._parts.journal.record(decisions, intents, legs))\n"
        "                task.add_done_callback(lambda done: done.cancelled() or done.exception())\n"
        "                return None\n",
    ),
    _hunted(
        "acknowledged-before-commit",
        "slow database",
        "a message is acknowledged before it is in the database",
        "api/intake.py",
        "            result = await self._log.accept(signal, sha256(body).hexdigest(), _answer(signal))\n",
        "            accept = self._log.accept(signal, sha256(body).hexdigest(), _answer(signal))\n"
        "            task = asyncio.ensure_future(accept)\n"
        "            task.add_done_callback(lambda done: done.cancelled() or done.exception())\n"
        "            result = IntakeResult(fresh=True, answer=_answer(signal))\n",
    ),
    _hunted(
        "partial-counts-as-full",
        "partial fills",
        "the first fill of an entry counts as all of it",
        "execution/legs.py",
        "    lot = filled + fill.lot\n",
        "    lot = intended\n",
    ),
    _hunted(
        "fills-counted-twice",
        "partial fills",
        "an execution that is told twice counts twice",
        "execution/ledger.py",
        "        if fill.fill_id in self._counted:\n            return grown_ticket\n",
        "",
        quick=True,
    ),
    _hunted(
        "late-fill-ignored",
        "ghosts",
        "a fill of an order that had been given up is not counted",
        "execution/ledger.py",
        "        if before is not None and before.state.settled and fill.fill_id in self._counted:\n",
        "        if before is not None and before.state.settled:\n",
    ),
    _hunted(
        "lease-ignored",
        "leases",
        "entries are taken on an account whose lease another daemon holds",
        "account.py",
        "        if not self.leased:\n",
        "        if False:\n",
    ),
    _hunted(
        "stale-equity",
        "silence",
        "the age of an equity does not matter",
        "protection/equity_watch.py",
        "        age_s = max(ages)\n",
        "        age_s = 0.0\n",
    ),
    _hunted(
        "closed-trades-only",
        "losses",
        "drawdown is measured on closed trades: floating losses do not count",
        "account.py",
        "        self.verdict = self.guard.observe(\n            equity.value,\n",
        "        self.verdict = self.guard.observe(\n            snapshot.balance,\n",
    ),
    _hunted(
        "mark-forgotten",
        "marks",
        "a restart begins with the equity it meets instead of the high-water mark in the database",
        "account.py",
        "        self.guard.restore(await self._parts.store.mark(self.member.connection_id))\n",
        "",
    ),
)
