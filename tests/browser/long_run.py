"""The events of a run that looks like one of a real model: five turns, batches, a child, an error."""

from __future__ import annotations

import dataclasses
import random
from decimal import Decimal

from rlm_kernel import events as ev
from rlm_kernel.outputs import Output
from rlm_kernel.usage import Usage

START = 1_760_000_000.0
QUESTION = "Which of the 48 supplier contracts changed their limitation of liability between 2023 and 2024?"
WORDS = "The clause on limitation of liability was raised from 12 to 24 months of fees in this contract. "
LOOK = "print(len(context), list(context)[:3])"
PAIRS = """pairs = {n[:-9]: (context[n], context[n.replace("2023", "2024")]) for n in context if "2023" in n}
verdict = rlm_query("Compare the two versions", pairs)"""
ANSWER = (
    "19 of the 48 contracts changed it.\n\nAcme, Birch and Corvus raised it from 12 to 24 months of fees; "
    "the other 16 dropped the exception for gross negligence."
)
CODE = """parts = [text for name, text in sorted(context.items())]
prompts = [f"Does this contract change the limitation of liability?\\n\\n{part}" for part in parts]
found = llm_query_batched(prompts)
print(sum("yes" in each.lower() for each in found))"""


class Tape:
    """Writes events at times of their own; `events` sorts them as an emitter would have stamped them."""

    def __init__(self) -> None:
        self._events: list[tuple[float, int, ev.Event]] = []

    def at(self, seconds: float, event: ev.Event) -> None:
        self._events.append((seconds, len(self._events), event))

    def events(self) -> list[ev.Event]:
        ordered = sorted(self._events, key=lambda each: each[:2])
        return [
            dataclasses.replace(event, seq=seq, time=START + seconds)
            for seq, (seconds, _, event) in enumerate(ordered)
        ]


def usage(into: int, out: int, cached: float = 0.0, price: float = 1.25) -> Usage:
    return Usage(into, out, int(into * cached), 0, Decimal(str(round((into * price + out * 10) / 1e6, 6))))


def turn(tape, start, number, seconds, text, *, run="r1", depth=0, into=4000, cached=0.6):
    call = f"{run}c{number}"
    tape.at(
        start,
        ev.CallStarted(run=run, call=call, kind="root", turn=number, depth=depth, model="gpt-5", messages=()),
    )
    for at in range(0, len(text), 20):
        when = start + 0.3 + (seconds - 0.3) * at / len(text)
        tape.at(when, ev.CallDelta(run=run, call=call, text=text[at : at + 20]))
    used = usage(into, len(text) // 4, cached)
    tape.at(
        start + seconds,
        ev.CallFinished(
            run=run, call=call, text=text, model="gpt-5", usage=used, seconds=seconds, finish_reason="stop"
        ),
    )
    tape.at(
        start + seconds,
        ev.MessageAdded(run=run, turn=number, message={"role": "assistant", "content": text}),
    )


def cell(tape, start, number, seconds, code, out, *, run="r1", status="ok", error=None):
    name = f"{run}x{number}"
    tape.at(start, ev.CellStarted(run=run, cell=name, turn=number, block=1, code=code))
    outputs = [Output("stdout", text=out)] if out else []
    if error:
        outputs.append(
            Output(
                "error",
                text=f"Traceback (most recent call last):\n{error}",
                name=error.split(":")[0],
                value=error.split(": ")[1],
            )
        )
    tape.at(
        start + seconds,
        ev.CellFinished(run=run, cell=name, status=status, outputs=tuple(outputs), seconds=seconds),
    )
    tape.at(
        start + seconds + 0.01,
        ev.MessageAdded(run=run, turn=number, message={"role": "user", "content": f"Output:\n{out}"}),
    )
    return name


def batch(tape, start, cell_name, name, size, *, lanes=16, failed=(), run="r1", turn=2, seed=7):
    """Add a batch whose calls run in ``lanes`` at a time; return when the last has ended."""
    dice = random.Random(seed)
    free = [start] * lanes
    for index in range(size):
        lane = free.index(min(free))
        began, took = free[lane], dice.uniform(0.3, 1.4)
        free[lane] = began + took
        call = f"{name}.{index}"
        prompt = f"Does this contract change the limitation of liability?\n\nContract {index}. {WORDS * 3}"
        tape.at(
            began,
            ev.CallStarted(
                run=run,
                call=call,
                kind="llm_query",
                turn=turn,
                depth=1,
                model="gpt-5-mini",
                cell=cell_name,
                batch=name,
                index=index,
                messages=({"role": "user", "content": prompt},),
            ),
        )
        error = "RateLimitError: 429 from the endpoint, after 5 attempts" if index in failed else None
        tape.at(
            began + took,
            ev.CallFinished(
                run=run,
                call=call,
                text="" if error else f"Yes: raised to 24 months (contract {index}).",
                model="gpt-5-mini",
                usage=Usage() if error else usage(5200, 14, 0.5, 0.25),
                seconds=took,
                finish_reason="" if error else "stop",
                error=error,
            ),
        )
    return max(free)


def run(*, size: int = 48, failed=(11,), until: float | None = None) -> list[ev.Event]:
    """Return the run's events, those up to ``until`` seconds only if it is given."""
    tape = Tape()
    tape.at(
        0,
        ev.RunStarted(
            run="r1",
            query=QUESTION,
            model="gpt-5",
            sub_model="gpt-5-mini",
            repl="local",
            contexts=(ev.ContextInfo("context", "dict", 48, "items", "48 contracts by name"),),
            limits={"usd": 0.5, "seconds": 600.0},
            package="rlm-kernel",
        ),
    )
    for role, text in (("system", "You have a Python REPL. " * 30), ("user", QUESTION)):
        tape.at(0, ev.MessageAdded(run="r1", turn=0, message={"role": role, "content": text}))
    turn(
        tape,
        0.01,
        1,
        3.1,
        f"I'll look at what the context is first.\n```repl\n{LOOK}\n```",
        cached=0.0,
    )
    tape.at(
        0.6,
        ev.KernelStarted(
            run="r1", kernel="k1", backend="local", implementation="ipykernel 7.4", seconds=0.58
        ),
    )
    cell(
        tape,
        3.15,
        1,
        0.04,
        LOOK,
        "48 ['acme-2023.txt', 'acme-2024.txt', 'birch-2023.txt']\n",
    )
    turn(tape, 3.2, 2, 4.2, f"One question for each contract, all at once.\n```repl\n{CODE}\n```", into=4700)
    end = batch(tape, 7.5, "r1x2", "b1", size, failed=failed)
    cell(tape, 7.45, 2, end - 7.45 + 0.02, CODE, "19\n")
    start = end + 0.1
    turn(
        tape,
        start,
        3,
        2.4,
        "Let me read the ones that changed.\n```repl\nchanged = [n for n in names if 'yes' in found[n]]\n```",
        into=5300,
    )
    cell(
        tape,
        start + 2.45,
        3,
        0.02,
        "changed = [n for n in names if 'yes' in found[n]]",
        "",
        status="error",
        error="NameError: name 'names' is not defined",
    )
    start += 2.5
    turn(
        tape,
        start,
        4,
        3.3,
        f"The list was not named. A child can compare the two versions of each.\n```repl\n{PAIRS}\n```",
        into=5900,
    )
    child(tape, start + 3.4)
    cell(
        tape,
        start + 3.35,
        4,
        6.5,
        PAIRS,
        "ok\n",
    )
    start += 9.9
    tape.at(start, ev.Notice(run="r1", text="one call of 48 failed after 5 attempts: 429 from the endpoint"))
    turn(tape, start, 5, 2.1, f"FINAL({ANSWER})", into=6400)
    tape.at(
        start + 2.15,
        ev.RunFinished(
            run="r1",
            status="answered",
            text=ANSWER,
            iterations=5,
            calls=size + 8,
            usage=usage(290_000, 1800, 0.5, 0.4),
            seconds=start + 2.15,
        ),
    )
    events = tape.events()
    return events if until is None else [each for each in events if each.time <= START + until]


def child(tape, start):
    tape.at(
        start,
        ev.CallStarted(
            run="r1",
            call="cc",
            kind="rlm_query",
            turn=4,
            depth=1,
            model="gpt-5-mini",
            cell="r1x4",
            messages=({"role": "user", "content": "Compare the two versions"},),
        ),
    )
    tape.at(
        start,
        ev.RunStarted(
            run="r2",
            parent_run="r1",
            parent_call="cc",
            depth=1,
            query="Compare the two versions",
            model="gpt-5-mini",
            sub_model="gpt-5-mini",
            repl="local",
        ),
    )
    tape.at(
        start,
        ev.MessageAdded(run="r2", turn=0, message={"role": "user", "content": "Compare the two versions"}),
    )
    turn(
        tape,
        start + 0.01,
        1,
        2.2,
        "Pairs of texts.\n```repl\nfound = llm_query_batched([...])\n```",
        run="r2",
        depth=1,
        into=1800,
    )
    end = batch(tape, start + 2.3, "r2x1", "b2", 12, lanes=12, run="r2", turn=1, seed=3)
    cell(
        tape,
        start + 2.25,
        1,
        end - start - 2.2,
        "found = llm_query_batched([...])",
        "12 compared\n",
        run="r2",
    )
    turn(tape, end + 0.1, 2, 1.1, "FINAL(three were raised)", run="r2", depth=1, into=2400)
    tape.at(
        end + 1.25,
        ev.RunFinished(
            run="r2",
            status="answered",
            text="three were raised",
            iterations=2,
            calls=14,
            usage=usage(66_000, 300),
            seconds=end + 1.25 - start,
        ),
    )
    tape.at(
        end + 1.26,
        ev.CallFinished(
            run="r1", call="cc", text="three were raised", model="gpt-5-mini", seconds=end + 1.26 - start
        ),
    )
