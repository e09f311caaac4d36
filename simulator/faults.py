"""What goes wrong on the wire, by name. Each REST fault is consumed by one call of its path, in the order added.

REST (`faults.add("v5/order/create", kind)`); *before*: the venue did nothing; *after*: it acted, the answer is lost.

- `reset_before`, `reset_after`: TCP reset, as by a load balancer or NAT. Both look the same from outside.
- `hang_after`: no answer at all; a stalled gateway. The client's time-out ends it.
- `truncate_after`: the answer breaks off inside its body; a proxy dies while sending.
- `http502_before`, `http502_html_after`: a gateway's HTML page instead of an answer.
- `http502_json_after`: the same with a JSON body that has no retCode.
- `garbage200_after`: status 200 and a body that is not JSON; a captive portal or a misconfigured proxy.
- `ret_before:<code>:<message>`, `ret_after:<code>:<message>`: a retCode, e.g. `ret_after:10016:Internal server error`.
- `http429`: refused for too many requests before anything was done.

WebSocket (`faults.add("ws:public", kind)` or `"ws:private"`):

- `mute`: the connection stays open and nothing comes, pongs neither, until `clear`; a half-dead peer.
- `bad_frame`: the next pushed message is malformed (one topic's payload of the wrong shape).
- `refuse_subscription`: the next `subscribe` is answered with `success: false`.
- `refuse_connection`: the next handshake is answered with HTTP 503; a venue in maintenance.

Dropping streams is a method of the server (`drop_streams`).
"""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass

REST_KINDS = frozenset(
    {
        "reset_before",
        "reset_after",
        "hang_after",
        "truncate_after",
        "http502_before",
        "http502_html_after",
        "http502_json_after",
        "garbage200_after",
        "http429",
    }
)
WS_KINDS = frozenset({"mute", "bad_frame", "refuse_subscription", "refuse_connection"})
WS_PATHS = ("ws:public", "ws:private")


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault to happen; `code` and `message` only for retCodes."""

    kind: str
    code: int = 0
    message: str = ""

    @property
    def acted(self) -> bool:
        """The venue carries the request out before the fault strikes."""
        return self.kind.endswith("_after")


def parse_fault(path: str, text: str) -> Fault:
    """Read `kind` or `ret_before:<code>:<message>`. Raises ValueError naming the text."""
    if path.startswith("ws:"):
        if path not in WS_PATHS:
            raise ValueError(f"stream must be one of {', '.join(WS_PATHS)}, was {path!r}")
        if text not in WS_KINDS:
            raise ValueError(f"fault of a stream must be one of {', '.join(sorted(WS_KINDS))}, was {text!r}")
        return Fault(text)
    if text in REST_KINDS:
        return Fault(text)
    kind, _, rest = text.partition(":")
    code, _, message = rest.partition(":")
    if kind not in ("ret_before", "ret_after") or not code.isdecimal():
        raise ValueError(
            f"unknown fault, was {text!r}; known: {', '.join(sorted(REST_KINDS))}, ret_before:<code>:<msg>"
        )
    return Fault(kind, int(code), message)


class Faults:
    """What is going to go wrong."""

    def __init__(self) -> None:
        self._waiting: defaultdict[str, deque[Fault]] = defaultdict(deque)

    def add(self, path: str, kind: str, times: int = 1) -> None:
        """Let the next `times` calls of `path` meet this fault. Raises ValueError for an unknown kind or stream."""
        fault = parse_fault(path.strip("/"), kind)
        self._waiting[path.strip("/")].extend([fault] * times)

    def take(self, path: str) -> Fault | None:
        """The fault that this call meets, consumed."""
        waiting = self._waiting.get(path.strip("/"))
        return waiting.popleft() if waiting else None

    def take_kind(self, path: str, kind: str) -> bool:
        """Consume the first waiting fault of that kind, if any."""
        waiting = self._waiting.get(path)
        for fault in waiting or ():
            if fault.kind == kind and waiting is not None:
                waiting.remove(fault)
                return True
        return False

    def active(self, path: str, kind: str) -> bool:
        """A lasting fault (`mute`) is in force; not consumed."""
        return any(fault.kind == kind for fault in self._waiting.get(path, ()))

    def clear(self, path: str | None = None) -> None:
        """Forget the faults of a path, or all."""
        if path is None:
            self._waiting.clear()
        else:
            self._waiting.pop(path.strip("/"), None)
