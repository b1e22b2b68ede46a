"""A session whose messages may get lost on the way: what was lost is found out with the guest, and made good.

A connection that breaks takes messages of either side with it, and a gateway drops some by itself: it limits
the rate of outputs, among which requests of threads travel. So host and guest compare what they have, after
each break and from time to time. A request is known by its id: one that was answered gets the same answer
again, and nothing is asked of a model twice. A cell is sent again only once it is certain that it did not
arrive.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any

from ...errors import CallError, ContextError, KernelStartError, WireError
from ...outputs import Output
from .. import wire
from ..bootstrap import GuestSettings
from ..session import JupyterSession, _Cell
from ..transport import JupyterMessage
from .answered import Answered
from .transport import GatewayTransport

__all__ = ["LEASE_SECONDS", "GatewaySession"]

LEASE_SECONDS = 300.0
"""How long a kernel waits for a word of ours before it ends itself."""

COMPARE_SECONDS = 5.0
# Before the end of a cell is taken from the guest's word: what came by itself is better.
ON_ITS_WAY_SECONDS = 1.0
ANSWER_SECONDS = 10.0
AGAIN_SECONDS = 10.0
# A gateway measures the rate of outputs over 3 s.
LIMIT_SECONDS = 3.5
# Over a slow line, a message of more takes longer than the other side waits for a word.
REPLY_BYTES = 1024 * 1024
_ANSWERS = frozenset(("rlm_state", "kernel_info_reply", "rlm_left"))

Reply = dict[str, Any]


class GatewaySession(JupyterSession):
    """A `JupyterSession` over a `GatewayTransport`. ``lease`` is in seconds."""

    def __init__(
        self,
        transport: GatewayTransport,
        settings: GuestSettings | None = None,
        *,
        lease: float = LEASE_SECONDS,
    ) -> None:
        super().__init__(transport, settings or GuestSettings(lease=lease))
        self._link = transport
        self._lease = lease
        # Whether the guest can compare; None until that is known.
        self._compares: bool | None = None
        self._comparing: asyncio.Task[None] | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._awaited: dict[str, asyncio.Future[Mapping[str, Any] | None]] = {}
        self._answered = Answered()
        self._of: _Cell | None = None
        self._sending: set[asyncio.Task[None]] = set()
        transport.on_return = self._returned

    async def prepare(self) -> None:
        """Start the kernel and install the guest; see `JupyterSession.prepare`."""
        asking = asyncio.create_task(self._ask_again())
        try:
            await super().prepare()
        finally:
            asking.cancel()
        while self._compares is None:
            try:
                state = await asyncio.wait_for(self._state(None), ANSWER_SECONDS)
                self._compares = state is not None
                self._link.holds_texts = state is not None and state.get("holds_texts") is True
            except TimeoutError:
                # Lost in a break, maybe.
                if not self.alive:
                    raise KernelStartError(f"the kernel ended while it started: {self._death}") from None
        self._keeping = asyncio.create_task(self._keep())

    async def _ask_again(self) -> None:
        """Make good what gets lost on the way while the kernel starts."""
        while True:
            await asyncio.sleep(AGAIN_SECONDS)
            self._compare(afresh=True)

    async def close(self) -> None:
        """End the kernel; see `JupyterSession.close`."""
        for task in (self._keeping, self._comparing, *self._sending):
            if task is not None:
                task.cancel()
        await super().close()

    # Comparing with the guest -----------------------------------------------------------------------

    async def _keep(self) -> None:
        """Let the kernel hear of us, and the gateway tell of it, for as long as the session is open."""
        while self.alive:
            await asyncio.sleep(min(COMPARE_SECONDS, self._lease / 4))
            if not self._compares:
                await self._link.still_there()
                continue
            if self._comparing is not None and not self._comparing.done():
                # It is busy, or it is no more.
                await self._link.still_there()
            self._compare()

    def _returned(self, seconds: float) -> None:
        cell = self._cell
        if cell is not None and self._ready is not None:
            note = (
                f"[the connection to the kernel was lost for {seconds:.1f} s: some output may be missing]\n"
            )
            self._put_out(cell, Output("stderr", note))
        self._compare(afresh=True)

    def _compare(self, *, afresh: bool = False) -> None:
        if not self.alive:
            return
        if self._comparing is not None and not self._comparing.done():
            if not afresh:
                # That one may wait for the end of a long cell; the kernel is to hear of us all the same.
                self._link.send("control", "rlm_compare", self._asked(self._cell, None))
                return
            # What that one waits for may be lost.
            self._comparing.cancel()
        self._comparing = asyncio.create_task(self._compare_now())

    async def _compare_now(self) -> None:
        cell = self._cell
        if self._compares is False:
            # A kernel that is no ipykernel: what its gateway has kept for us is all that there is.
            return
        state = await self._state(cell)
        if state is None and self._compares:
            self._link.give_up("its process ended, and the gateway has started another one")
        if cell is None or not cell.id or cell is not self._cell:
            return
        if state is None or not (state.get("running") == cell.id or state.get("ended")):
            # It may stand in the queue still; this comes after it.
            await self._answer_to("shell", "kernel_info_request", {})
            state = await self._state(cell)
            if cell is not self._cell or cell.reply is not None:
                return
            if state is None and self._ready is not None:
                self._link.give_up("the connection broke, and it can't tell what became of the cell")
            elif state is None or not state.get("ended"):
                cell.id = self._link.send("shell", "execute_request", self._link.last_request)
                return
        if state and isinstance(state.get("ended"), dict):
            await asyncio.sleep(ON_ITS_WAY_SECONDS)
            if cell is self._cell:
                self._end(cell, state["ended"])

    def _asked(self, cell: _Cell | None, ends: str | None) -> dict[str, Any]:
        # An ipykernel's guest has the lease from its settings; a sandbox's kernel, from here.
        return {"have": _in_hand(cell), "cell": ends, "lease": self._lease}

    async def _state(self, cell: _Cell | None, **noted: Any) -> Mapping[str, Any] | None:
        """Have the guest send again what we lack, and tell what became of ``cell``; None without a guest.

        ``noted`` is for it to remember.
        """
        ends = None if cell is None or cell.replied else cell.id
        asked = {**self._asked(cell, ends), **noted}
        state = asyncio.ensure_future(self._answer_to("control", "rlm_compare", asked))
        # A kernel without the guest does not answer that, but this, which comes after it.
        other = asyncio.ensure_future(self._answer_to("control", "kernel_info_request", {}))
        try:
            await asyncio.wait([state, other], return_when=asyncio.FIRST_COMPLETED)
            return state.result() if state.done() else None
        finally:
            state.cancel()
            other.cancel()

    async def _answer_to(
        self, channel: Any, type_: str, content: Mapping[str, Any]
    ) -> Mapping[str, Any] | None:
        id_ = self._link.send(channel, type_, content)
        future: asyncio.Future[Mapping[str, Any] | None] = asyncio.get_running_loop().create_future()
        self._awaited[id_] = future
        try:
            return await future
        finally:
            del self._awaited[id_]

    def _end(self, cell: _Cell, ended: Mapping[str, Any]) -> None:
        """Take the end of a cell from the guest's word."""
        try:
            if cell.report is None and isinstance(ended.get("report"), dict):
                text = json.dumps({**ended["report"], "rlm": wire.VERSION, "id": "again", "op": "cell"})
                self._note(cell, wire.parse(text).body)  # type: ignore[arg-type]
        except WireError:
            return
        if cell.reply is None:
            content = {key: ended.get(key) for key in ("status", "ename", "evalue")}
            cell.reply = JupyterMessage("shell", "execute_reply", content, cell.id, {})
        cell.idle = True
        cell.changed.set()

    def _receive(self, message: JupyterMessage) -> None:
        awaited = self._awaited.get(message.parent_id or "")
        if awaited is not None and message.type in _ANSWERS and not awaited.done():
            awaited.set_result(message.content)
            return
        super()._receive(message)

    def _receive_iopub(self, cell: _Cell, message: JupyterMessage) -> None:
        super()._receive_iopub(cell, message)
        if message.type == "stream" and "rate exceeded" in message.content["text"][:100]:
            asyncio.get_running_loop().call_later(LIMIT_SECONDS, self._compare)

    # Answers ----------------------------------------------------------------------------------------

    def _take(self, cell: _Cell, envelope: wire.Envelope, answer: Callable[[Reply], None]) -> None:
        if self._of is not cell:
            self._of, self._answered = cell, Answered()
        answered = self._answered
        before = answered.get(envelope.id)
        if before is not None:
            answer(before)
            return

        def remembering(reply: Reply) -> None:
            text = json.dumps(reply)
            if len(text) <= REPLY_BYTES:
                answered.add(envelope.id, reply, len(text))
                answer(reply)
            else:
                task = asyncio.create_task(self._answer_in_a_file(answered, text, reply["id"], answer))
                self._sending.add(task)
                task.add_done_callback(self._sending.discard)

        super()._take(cell, envelope, remembering)

    async def _answer_in_a_file(
        self, answered: Answered, text: str, id_: str, answer: Callable[[Reply], None]
    ) -> None:
        try:
            reply = wire.encode_reply(id_, None)
            reply["file"] = await self._link.deliver(text.encode())
        except (ContextError, KernelStartError) as error:
            reply = wire.encode_reply(id_, CallError(f"the answer is too large: {error}", kind="internal"))
        answered.add(id_, reply, 100)
        answer(reply)

    def _flush_replies(self) -> None:
        # In messages that a server takes.
        waiting, self._replies = self._replies, []
        group: list[Reply] = []
        size = 0
        for reply in waiting:
            length = self._answered.size_of(reply["id"])
            if group and size + length > REPLY_BYTES:
                self._send_replies(group)
                group, size = [], 0
            group.append(reply)
            size += length
        self._send_replies(group)

    def _send_replies(self, replies: list[Reply]) -> None:
        if self.alive and replies:
            self._link.send("control", "rlm_reply", {"replies": replies})


def _in_hand(cell: _Cell | None) -> list[str]:
    """Return the ids of the requests that are being answered."""
    return [] if cell is None else [id_ for id_, task in cell.calls.items() if not task.done()]
