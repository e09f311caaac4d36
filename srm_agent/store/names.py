"""How tables are called: standalone, or attached beside the platform's own."""

from __future__ import annotations

import re
from dataclasses import dataclass

from srm_agent.errors import ConfigurationError

_PREFIX = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,11}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """Name mapping. Attached, `execution_logs` becomes `sp_execution_logs` and learning tables gain the infix `srm_`.

    The agent's own tables are `<prefix>srm_<name>` in both cases, so that they never meet a table of the platform.
    """

    prefix: str = ""
    attached: bool = False

    def __post_init__(self) -> None:
        if self.prefix and not _PREFIX.fullmatch(self.prefix):
            raise ConfigurationError(
                f"[store] table_prefix must be a letter, then letters, digits or _ (at most 12), was {self.prefix!r}"
            )

    def platform(self, name: str) -> str:
        """A table that the platform has too, e.g. `execution_logs`."""
        return f"{self.prefix}{name}"

    def metrics(self) -> str:
        """`signal_provider_metrics` standalone, `<prefix>srm_signal_provider_metrics` attached."""
        return f"{self.prefix}srm_signal_provider_metrics" if self.attached else f"{self.prefix}signal_provider_metrics"

    def own(self, name: str) -> str:
        """A table of the agent alone."""
        return f"{self.prefix}srm_{name}"


STANDALONE = Names()
"""The agent's own database."""
