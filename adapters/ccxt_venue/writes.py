"""The orders of one Bybit account: sent once, judged by white lists, never repeated inside."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from decimal import Decimal

import structlog

from adapters.ccxt_venue.budget import Priority, RequestBudget
from adapters.ccxt_venue.client import VenueClient
from adapters.ccxt_venue.failures import CallFailed, Failure
from adapters.ccxt_venue.orders import WireOrder, order_names
from adapters.ccxt_venue.outcomes import ALREADY_GONE, Judgement, Verdict, change_error, judge_submit, read_error
from adapters.ccxt_venue.rows import BadRow
from srm_agent.clock import Clock
from srm_agent.domain.ids import ClientOrderId, ConnectionId, Symbol
from srm_agent.domain.orders import OrderIntent, OrderPurpose, OrderReport, Outcome
from srm_agent.domain.units import ZERO, plain
from srm_agent.errors import BrokerUnreachable, NotAuthorised, OrderRefused

log = structlog.get_logger()

Lookup = Callable[[ClientOrderId, Symbol], Awaitable[OrderReport]]


class BybitWrites:
    """Everything that changes the account, on its own trading instance."""

    def __init__(
        self,
        client: VenueClient,
        budget: RequestBudget,
        clock: Clock,
        connection_id: ConnectionId,
        lookup: Lookup,
    ) -> None:
        self._client = client
        self._budget = budget
        self._clock = clock
        self._connection_id = connection_id
        self._lookup = lookup
        self._log = log.bind(connection_id=connection_id)

    async def send(self, intent: OrderIntent, order: WireOrder) -> OrderReport:
        """Wait for the budget, then send once. WORKING, REJECTED or UNKNOWN; a duplicate answers with its look-up.

        Raises BrokerUnreachable when nothing was sent or it was provably not taken, NotAuthorised.
        """
        await self._budget.take(Priority.ENTRY if intent.purpose is OrderPurpose.ENTRY else Priority.EXIT)
        late = self._clock.monotonic() - intent.deadline
        if late > 0:
            # After the deadline a look-up may already have said ABSENT for good (INV-5): nothing may follow it.
            raise BrokerUnreachable(f"{intent.client_id}: not sent, the deadline passed {late:.3f} s ago")
        try:
            order_id = await self._client.create_order(
                intent.symbol, order.kind, order.side, order.amount, order.price, order.params
            )
        except CallFailed as failed:
            return await self._judged(intent, failed.failure)
        received = self._clock.monotonic()
        if order_id is None:
            return OrderReport(
                client_id=intent.client_id,
                outcome=Outcome.UNKNOWN,
                code="NO_ORDER_ID",
                detail="the reply carried no order id",
                received=received,
            )
        return OrderReport(
            client_id=intent.client_id, outcome=Outcome.WORKING, broker_order_id=order_id, received=received
        )

    async def _judged(self, intent: OrderIntent, failure: Failure) -> OrderReport:
        judgement = judge_submit(failure)
        match judgement.verdict:
            case Verdict.NOTHING_HAPPENED:
                if judgement.code == "CLOCK":
                    await self._measure_clock()
                raise BrokerUnreachable(f"{intent.client_id}: {judgement.code} {failure.text}")
            case Verdict.AUTH:
                raise NotAuthorised(f"{self._connection_id}: {failure.text}")
            case Verdict.REJECTED if judgement.code == "DUPLICATE_ID":
                return await self._first_sending(intent)
            case Verdict.REJECTED:
                return self.rejected(intent.client_id, judgement.code, failure.text)
            case Verdict.UNKNOWN:
                return self._unknown(intent.client_id, judgement, failure.text)

    async def _first_sending(self, intent: OrderIntent) -> OrderReport:
        try:
            found = await self._lookup(intent.client_id, intent.symbol)
        except BrokerUnreachable as error:
            return self._unknown(intent.client_id, Judgement(Verdict.UNKNOWN, "DUPLICATE_ID"), str(error))
        if found.outcome is Outcome.ABSENT:
            # The venue knows the id and does not list it: not proof of anything.
            return self._unknown(
                intent.client_id, Judgement(Verdict.UNKNOWN, "DUPLICATE_ID"), "id is taken, order is not listed"
            )
        return found

    def rejected(self, client_id: ClientOrderId, code: str, detail: str) -> OrderReport:
        """A definitive refusal, the venue's or our own before sending."""
        return OrderReport(
            client_id=client_id,
            outcome=Outcome.REJECTED,
            code=code,
            detail=detail,
            received=self._clock.monotonic(),
        )

    def _unknown(self, client_id: ClientOrderId, judgement: Judgement, detail: str) -> OrderReport:
        self._log.warning("outcome unknown", client_id=client_id, code=judgement.code, reason=detail)
        return OrderReport(
            client_id=client_id,
            outcome=Outcome.UNKNOWN,
            code=judgement.code,
            detail=detail,
            received=self._clock.monotonic(),
        )

    async def _measure_clock(self) -> None:
        try:
            await self._client.measure_clock()
        except CallFailed as failed:
            self._log.warning("clock of the venue not measured", reason=str(failed))

    async def protect(self, market_id: str, index: int, stop_loss: Decimal | None, take_profit: Decimal | None) -> None:
        """Set stop and target of the whole position; None keeps, 0 clears. Repeating is harmless.

        Raises OrderRefused, BrokerUnreachable, NotAuthorised.
        """
        values = {"stopLoss": stop_loss, "takeProfit": take_profit}
        changes: dict[str, object] = {name: plain(value) for name, value in values.items() if value is not None}
        if not changes:
            return
        for name, value in values.items():
            if value is not None and value < ZERO:
                raise OrderRefused("INVALID_STOPS", f"{name} must not be negative, was {plain(value)}")
        request = {"category": "linear", "symbol": market_id, "positionIdx": index, "tpslMode": "Full", **changes}
        await self._budget.take(Priority.EXIT)
        try:
            await self._client.call("privatePostV5PositionTradingStop", request)
        except CallFailed as failed:
            error = change_error(failed.failure, "protect")
            if error is not None:
                raise error from failed
        except BadRow as error:
            raise BrokerUnreachable(f"protect: {error}") from error

    async def cancel(self, client_id: ClientOrderId, market_id: str) -> None:
        """Withdraw a working order; one that is gone already is no error. Raises BrokerUnreachable, NotAuthorised."""
        for name in order_names(client_id):
            await self._budget.take(Priority.EXIT)
            try:
                await self._client.call(
                    "privatePostV5OrderCancel", {"category": "linear", "symbol": market_id, name: client_id}
                )
            except CallFailed as failed:
                if failed.failure.ret_code not in ALREADY_GONE:
                    raise read_error(failed.failure, "cancel") from failed
            except BadRow as error:
                raise BrokerUnreachable(f"cancel: {error}") from error
            else:
                return
