"""The events of a run as the engine emits them, made up: two turns, a batch, a child, every type of event."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal

from rlm_kernel import events as ev
from rlm_kernel.outputs import Output
from rlm_kernel.usage import Usage

CODE = """prompts = [f"Count the words: {text}" for text in parts]
counts = llm_query_batched(prompts)
sum(counts)"""


@dataclass(frozen=True)
class Texts:
    """A context of named texts."""

    items: dict[str, str]
    name: str = "context"

    def texts(self) -> Iterator[tuple[str, str]]:
        return ((where, text) for where, text in self.items.items())


def stamped(stream: Iterable[ev.Event], *, step: float = 0.25) -> list[ev.Event]:
    """Number and date events as an Emitter does, ``step`` seconds apart."""
    return [
        dataclasses.replace(event, seq=seq, time=1_760_000_000.0 + seq * step)
        for seq, event in enumerate(stream)
    ]


def usage(tokens_in: int, tokens_out: int, cost: str | None = "0.001") -> Usage:
    return Usage(tokens_in, tokens_out, tokens_in // 2, 3, None if cost is None else Decimal(cost))


def run(
    context: str,
    *,
    batch: int = 4,
    failed: Iterable[int] = (2,),
    cost: str | None = "0.001",
    hostile: str = "",
    children: bool = True,
) -> list[ev.Event]:
    """Return a run over ``context`` in ``batch`` parts, some of which fail; ``hostile`` stands everywhere."""
    return stamped(_run(context, batch, set(failed), cost, hostile, children))


def _run(context, batch, failed, cost, hostile, children):
    size = len(context) // batch + 1
    yield ev.RunStarted(
        run="r1",
        query=f"How many words are in the text?{hostile}",
        contexts=(
            ev.ContextInfo("context", "str", len(context), "chars", f"a text, begins {context[:40]!r}"),
        ),
        model="big",
        sub_model="small",
        repl="local",
        limits={"usd": 1.0, "seconds": None},
        package="rlm-kernel 0.1.0",
        sources=(Texts({"": context}),),
    )
    yield ev.MessageAdded(run="r1", turn=0, message={"role": "system", "content": "You have a REPL."})
    yield ev.MessageAdded(run="r1", turn=0, message={"role": "user", "content": "How many words?"})
    yield from _reply("r1", "c1", 1, f"Let me look.{hostile}\n```repl\nlen(context)\n```", cost)
    yield ev.KernelStarted(
        run="r1", kernel="k1", backend="local", implementation="ipykernel 7.4", seconds=0.4
    )
    yield ev.CellStarted(run="r1", cell="x1", turn=1, block=1, code=f"len(context){hostile}")
    out = Output("result", text=f"{len(context)}{hostile}", data={"text/plain": str(len(context))})
    yield ev.CellOutput(run="r1", cell="x1", output=out)
    yield ev.CellFinished(run="r1", cell="x1", status="ok", outputs=(out,), seconds=0.02)
    yield _user("r1", 1, f"Output:\n{len(context)}{hostile}")
    yield from _reply("r1", "c2", 2, f"Now in parts.\n```repl\n{CODE}\n```", cost)
    yield ev.CellStarted(run="r1", cell="x2", turn=2, block=1, code=CODE)
    for index in range(batch):
        part = context[index * size : (index + 1) * size]
        yield ev.CallStarted(
            run="r1",
            call=f"c3.{index}",
            kind="llm_query",
            turn=2,
            depth=1,
            model="small",
            cell="x2",
            batch="b1",
            index=index,
            messages=({"role": "user", "content": f"Count the words in part {index}.\n\n{part}"},),
        )
    for index in reversed(range(batch)):
        error = f"RateLimitError: 429 from the endpoint{hostile}" if index in failed else None
        yield ev.CallFinished(
            run="r1",
            call=f"c3.{index}",
            text="" if error else str(100 + index),
            model="small-1",
            usage=usage(0, 0, "0") if error else usage(5000, 2, cost),
            finish_reason="" if error else "stop",
            seconds=0.5,
            error=error,
        )
    if children:
        yield from _child(context[1000:4000], cost)
    yield ev.Notice(run="r1", text=f"one call of 4 failed{hostile}")
    output = Output("stdout", text="\n".join(f"part {n}{hostile}" for n in range(100)), dropped=12)
    bad = Output("error", text="Traceback ...\nTypeError: bad", name="TypeError", value="bad")
    yield ev.CellFinished(run="r1", cell="x2", status="error", outputs=(output, bad), seconds=1.5, lost="all")
    yield ev.KernelLost(run="r1", kernel="k1", cause=f"killed{hostile}")
    yield _user("r1", 2, "Output:\n" + output.text)
    yield from _reply("r1", "c9", 3, "FINAL(about 406 words)", cost)
    goes_on = {"role": "user", "content": "How many words?"}
    yield ev.Compacted(run="r1", turn=3, messages=(goes_on,), tokens=110_000, variable="transcript")
    yield ev.RunFinished(
        run="r1",
        status="answered",
        text=f"about 406 words{hostile}",
        value={"words": 406, "$text": ["not ours"]},
        iterations=3,
        calls=3 + batch + children,
        usage=usage(128_400, 3120, cost),
        seconds=12.4,
    )


def _child(context, cost):
    yield ev.CallStarted(
        run="r1",
        call="c4",
        kind="rlm_query",
        turn=2,
        depth=1,
        model="small",
        cell="x2",
        messages=({"role": "user", "content": "Which word is longest?"},),
    )
    yield ev.RunStarted(
        run="r2",
        parent_run="r1",
        parent_call="c4",
        depth=1,
        query="Which word is longest?",
        model="small",
        sub_model="small",
        repl="local",
        sources=(Texts({"": context}),),
    )
    yield ev.MessageAdded(run="r2", turn=0, message={"role": "user", "content": "Question: which word?"})
    yield from _reply("r2", "c5", 1, f"FINAL({context[500:800]})", cost, depth=1)
    yield ev.RunFinished(
        run="r2", status="answered", text=context[500:800], iterations=1, calls=1, usage=usage(40, 5, cost)
    )
    yield ev.CallFinished(run="r1", call="c4", text=context[500:800], model="small")


def _reply(run, call, turn, text, cost, *, depth=0):
    yield ev.CallStarted(run=run, call=call, kind="root", turn=turn, depth=depth, model="big")
    for start in range(0, len(text), 7):
        yield ev.CallDelta(run=run, call=call, text=text[start : start + 7])
    yield ev.CallFinished(
        run=run,
        call=call,
        text=text,
        model="big-1",
        usage=usage(1200, 80, cost),
        finish_reason="stop",
        seconds=2.1,
    )
    yield ev.MessageAdded(run=run, turn=turn, message={"role": "assistant", "content": text})


def _user(run, turn, text):
    return ev.MessageAdded(run=run, turn=turn, message={"role": "user", "content": text})
