"""Logs: JSON lines for machines or colours for people, with secrets removed by key and by value (INV-16)."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, MutableMapping
from typing import TextIO

import structlog

HIDDEN = "[hidden]"
SECRET_KEYS = ("secret", "token", "password", "api_key", "apikey", "authorization", "signature", "credential")
LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class Redactor:
    """Removes what must never be seen: values under telling keys, and every live secret wherever it appears."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._secrets = tuple(secret for secret in secrets if len(secret) >= 8)

    def __call__(
        self, _logger: object, _method: str, event: MutableMapping[str, object]
    ) -> MutableMapping[str, object]:
        """A structlog processor."""
        for key, value in event.items():
            if any(word in key.lower() for word in SECRET_KEYS):
                event[key] = HIDDEN
            elif isinstance(value, str):
                event[key] = self.clean(value)
        return event

    def clean(self, text: str) -> str:
        """The text without live secrets."""
        for secret in self._secrets:
            if secret in text:
                text = text.replace(secret, HIDDEN)
        return text


def configure(level: str, style: str, secrets: Iterable[str] = (), stream: TextIO | None = None) -> None:
    """Set up structlog once per process. `style` is json or console; tracebacks become text before redaction."""
    out = stream or sys.stderr
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer(sort_keys=True)
        if style == "json"
        else structlog.dev.ConsoleRenderer(colors=out.isatty())
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            Redactor(secrets),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(out),
        cache_logger_on_first_use=True,
    )
    # Libraries beneath us say their errors through the standard module; ccxt's receive loop is noisy on reconnects.
    logging.basicConfig(level=logging.ERROR, stream=out, format="%(levelname)s %(name)s %(message)s")
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
