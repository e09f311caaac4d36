"""What the service manager is told, over its datagram socket (the protocol of sd_notify(3)); no library is needed."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Protocol

import structlog

log = structlog.get_logger()

SOCKET, WATCHDOG_USEC, WATCHDOG_PID = "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"
LONGEST_STATUS = 400


class Manager(Protocol):
    """Who started us and watches us. No call blocks or raises."""

    @property
    def watchdog_s(self) -> float | None:
        """Seconds without `alive` after which we are killed; None: nobody watches."""
        ...

    def ready(self, status: str) -> None:
        """Started, or a reload is done."""
        ...

    def status(self, text: str) -> None:
        """One line for people."""
        ...

    def alive(self) -> None:
        """The watchdog is fed."""
        ...

    def reloading(self, monotonic_s: float) -> None:
        """The configuration is being read anew; `ready` follows. `monotonic_s` is CLOCK_MONOTONIC."""
        ...

    def stopping(self) -> None:
        """The orderly end has begun."""
        ...


class NoManager:
    """Nobody listens: a terminal, a container, a simulation."""

    watchdog_s: float | None = None

    def ready(self, status: str) -> None:
        """Nobody to tell."""

    def status(self, text: str) -> None:
        """Nobody to tell."""

    def alive(self) -> None:
        """Nobody to tell."""

    def reloading(self, monotonic_s: float) -> None:
        """Nobody to tell."""

    def stopping(self) -> None:
        """Nobody to tell."""


class SystemdManager:
    """systemd, or whoever set NOTIFY_SOCKET. A lost message is logged once, never waited for."""

    def __init__(self, address: str, watchdog_s: float | None = None) -> None:
        """`address` as in NOTIFY_SOCKET: a path, or `@name` in the abstract namespace. Raises OSError."""
        self.watchdog_s = watchdog_s
        self._address = b"\0" + address[1:].encode() if address.startswith("@") else address.encode()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)
        self._deaf = False

    def ready(self, status: str) -> None:
        """READY=1 with the status."""
        self._send(f"READY=1\nSTATUS={_line(status)}")

    def status(self, text: str) -> None:
        """STATUS=."""
        self._send(f"STATUS={_line(text)}")

    def alive(self) -> None:
        """WATCHDOG=1."""
        self._send("WATCHDOG=1")

    def reloading(self, monotonic_s: float) -> None:
        """RELOADING=1, with the time that Type=notify-reload asks for."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={int(monotonic_s * 1_000_000)}")

    def stopping(self) -> None:
        """STOPPING=1."""
        self._send("STOPPING=1\nSTATUS=stopping: no new entries, positions keep their stops")

    def close(self) -> None:
        """Release the socket."""
        self._socket.close()

    def _send(self, text: str) -> None:
        try:
            self._socket.sendto(text.encode(), self._address)
        except OSError as error:
            if not self._deaf:
                log.warning("the service manager does not hear us", error=str(error))
            self._deaf = True
        else:
            self._deaf = False


def manager_of(environment: Mapping[str, str], pid: int) -> Manager:
    """The manager that the environment names; `NoManager` without NOTIFY_SOCKET or with one that cannot be used."""
    address = environment.get(SOCKET, "")
    if not address.startswith(("/", "@")) or len(address) < 2:
        return NoManager()
    try:
        return SystemdManager(address, _watchdog(environment, pid))
    except OSError as error:
        log.warning("the service manager's socket cannot be used", error=str(error))
        return NoManager()


def _watchdog(environment: Mapping[str, str], pid: int) -> float | None:
    microseconds, meant = environment.get(WATCHDOG_USEC, ""), environment.get(WATCHDOG_PID, "")
    if not microseconds.isdecimal() or int(microseconds) == 0 or (meant.isdecimal() and int(meant) != pid):
        return None
    return int(microseconds) / 1_000_000


def _line(text: str) -> str:
    return " ".join(text.split())[:LONGEST_STATUS]
