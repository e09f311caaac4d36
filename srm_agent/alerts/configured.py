"""The sinks that the configuration names."""

from __future__ import annotations

from srm_agent.alerts.addresses import target
from srm_agent.alerts.dispatcher import AlertRules
from srm_agent.alerts.web_sink import WebSink
from srm_agent.clock import Clock
from srm_agent.errors import ConfigurationError
from srm_agent.settings import Credentials, Settings

PLACES = (("url", "alerts"), ("second_url", "alerts.second"))
"""Key in [alerts], and how the credential files of that place begin: `.url`, `.token`."""


def rules_of(settings: Settings) -> AlertRules:
    """How alerts are told."""
    alerts = settings.alerts
    return AlertRules(
        agent=settings.agent.name, level=alerts.level, repeat_s=float(alerts.repeat_s), max_waiting=alerts.max_waiting
    )


def sinks_of(settings: Settings, credentials: Credentials, clock: Clock) -> list[WebSink]:
    """In the order in which they are asked; nothing is opened. Raises ConfigurationError naming key or file."""
    made = []
    for key, files in PLACES:
        in_file, url = credentials.find(f"{files}.url"), getattr(settings.alerts, key)
        if in_file is not None and url is not None:
            raise ConfigurationError(f"alerts.{key} is also in credential file {files}.url: keep one of the two")
        token = credentials.find(f"{files}.token")
        if in_file is None and url is None:
            if token is not None:
                raise ConfigurationError(f"credential file {files}.token needs alerts.{key}, or a file {files}.url")
            continue
        where = f"alerts.{key}" if in_file is None else f"credential file {files}.url"
        text = url if in_file is None else in_file.reveal()
        bearer = None if token is None else token.reveal()
        if bearer is not None and not (bearer.isascii() and bearer.isprintable() and " " not in bearer):
            raise ConfigurationError(f"credential file {files}.token must hold printable ASCII without blanks")
        made.append(
            WebSink(
                f"alerts.{key}",
                target(text, where, allow_private=settings.alerts.allow_private),
                clock,
                token=bearer,
                timeout_s=float(settings.alerts.timeout_s),
            )
        )
    return made


def alert_secrets(credentials: Credentials) -> list[str]:
    """What the log and the alerts themselves must never show."""
    names = [f"{files}.{part}" for _key, files in PLACES for part in ("url", "token")]
    return [secret.reveal() for name in names if (secret := credentials.find(name)) is not None]
