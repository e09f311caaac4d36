"""Secrets stay secret: INV-16."""

from __future__ import annotations

from collections.abc import Iterable

from simulator.simulation.invariants.check import Check, Final, Violation
from srm_agent.domain.decisions import canonical_json


class NoSecrets(Check):
    """INV-16: no canary appears in a log line, an alert or the text of the database. Judged once, at the end.

    The dumps of a real process (traces, cores) do not exist here: the soak on real processes looks at them.
    """

    name = "INV-16"

    def at_end(self, final: Final, at: float) -> Iterable[Violation]:
        """Search everything that was written."""
        evidence = self.evidence
        places = {
            "the log": evidence.log_lines,
            "an alert": [f"{told.title}\n{told.message}" for told in evidence.told],
            "the database": list(_texts(final)),
        }
        for place, lines in places.items():
            self.checked += len(lines)
            text = "\n".join(lines)
            for number, secret in enumerate(evidence.secrets, 1):
                if secret in text:
                    line = next(line for line in lines if secret in line)
                    hidden = line.replace(secret, "*" * 8)[:300]
                    yield self.broken(at, f"secret number {number} is in {place}: {hidden}")


def _texts(final: Final) -> Iterable[str]:
    yield from final.details.values()
    for message in final.messages:
        yield f"{message.signal!r} {message.answer}"
    for decision in final.decisions:
        yield canonical_json([dict(decision.inputs), dict(decision.numbers), dict(decision.model_versions)])
    for row in final.orders:
        yield f"{row.code} {row.broker_order_id} {row.intent.reason}"
    for halt in final.halts:
        yield f"{halt.key} {halt.reason} {halt.set_by}"
    for act in final.audit:
        yield f"{act.operator} {act.key} {act.detail}"
