"""Counters of the intake, in a registry that is given, never the global one."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge

from srm_agent.domain.ids import ProviderKey

UNKNOWN_PROVIDER = "unknown"
"""One label for all strangers: what they send must not create time series."""


class IntakeCounters:
    """Messages by provider and outcome (`accepted`, `repeated`, or the code of the refusal), and the queue."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._messages = Counter(
            "srm_intake_messages", "Webhook messages by outcome.", ["provider", "outcome"], registry=registry
        )
        self.in_flight = Gauge("srm_intake_in_flight", "Messages waiting for their commit.", registry=registry)
        self.in_doubt = Gauge("srm_intake_in_doubt", "Messages whose commit has an unknown outcome.", registry=registry)

    def count(self, provider: ProviderKey | None, outcome: str) -> None:
        """One more message; `provider` is None unless it is configured."""
        self._messages.labels(UNKNOWN_PROVIDER if provider is None else str(provider), outcome).inc()
