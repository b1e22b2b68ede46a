"""``jupyter rlm bench panel``: what a large run costs the page that shows it, and the notebook that keeps it.

A made-up run of as many calls as asked for goes through the panel's own feed, on an event loop and in real
time: all calls at once, then a burst of text, then text at a steady pace. Its batches are then replayed, at
the times they were sent, to the panel's own module in a headless Chromium, whose long tasks are the blocks
of the page's main thread. Without Chromium or Playwright, only the messages are measured.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from .. import events as ev
from ..errors import InputError
from ..notebook.bundle import mimebundle
from ..notebook.feed import Feed
from ..usage import Usage

__all__ = ["Phase", "measure", "panel"]

STATIC = Path(__file__).parents[1] / "notebook" / "static"
DELTAS_PER_SECOND = 500
BURST_DELTAS = 4_000
_BATCH_CALLS = 200
_ARGS = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")
_PAGE = """<!doctype html><meta charset="utf-8"><link rel="stylesheet" href="/panel.css"><div id="host"></div>
<script type="module">import { mount } from "/tree.js";
window.view = mount(document.getElementById("host"));</script>"""
_REPLAY = """async (batches) => {
  let longest = 0, blocked = 0, frames = 0, over = false;
  const watch = new PerformanceObserver((list) => {
    for (const each of list.getEntries()) {
      longest = Math.max(longest, each.duration);
      blocked += each.duration;
    }
  });
  watch.observe({type: "longtask"});
  const count = () => { frames += 1; if (!over) requestAnimationFrame(count); };
  requestAnimationFrame(count);
  const start = performance.now();
  for (const [at, events] of batches) {
    const wait = at * 1000 - (performance.now() - start);
    if (wait > 0) await new Promise((done) => setTimeout(done, wait));
    view.push(events);
  }
  while (view.queue.length || view.frame !== undefined) await new Promise((done) => setTimeout(done, 4));
  await new Promise((done) => setTimeout(done, 100));
  over = true;
  watch.disconnect();
  const seconds = (performance.now() - start) / 1000;
  return {longest, blocked, frames, seconds, rows: view.fold.nodes.size - 1};
}"""


@dataclass(slots=True)
class Phase:
    """One phase: the batches with the seconds after its start, their bytes, and what the page made of them.

    ``longest_ms`` is the longest block of the page's main thread of 50 ms or more, 0 without one; ``page`` is
    empty where there was no page.
    """

    name: str
    batches: list[tuple[float, list[dict[str, Any]]]] = field(default_factory=list)
    events: int = 0
    bytes: int = 0
    page: dict[str, float] = field(default_factory=dict)


def measure(calls: int, *, seconds: float = 4.0) -> tuple[list[Phase], dict[str, int], str]:
    """Return the phases, the saved sizes in bytes, and why there are no figures of a page, if so."""
    events = [
        dataclasses.replace(event, seq=seq, time=1.8e9 + seq / 1000) for seq, event in enumerate(_run(calls))
    ]
    phases = asyncio.run(_feed(events, seconds))
    reason = _in_a_page(phases)
    with tempfile.TemporaryDirectory() as folder:
        bundle = mimebundle(events, folder=folder)
        files = sum(each.stat().st_size for each in Path(folder).rglob("*.jsonl"))
    return phases, {"notebook": len(json.dumps(bundle)), "trace file": files}, reason


def panel(args: argparse.Namespace) -> None:
    """Measure, and print a table or JSON."""
    if args.calls > 100_000:
        raise InputError(f"{args.calls:,} calls are more than this makes up", hint="100,000 at most")
    phases, sizes, reason = measure(args.calls, seconds=args.seconds)
    if args.json:
        rows = [
            {"phase": each.name, "events": each.events, "messages": len(each.batches), "bytes": each.bytes}
            | each.page
            for each in phases
        ]
        sys.stdout.write(json.dumps({"calls": args.calls, "phases": rows, "saved_bytes": sizes}) + "\n")
        return
    head = ("phase", "events", "messages", "KB", "seconds", "frames", "longest block, ms", "blocked, ms")
    lines = ["  ".join(f"{name:>{max(8, len(name))}}" for name in head)]
    for each in phases:
        page = each.page
        cells = [each.name, f"{each.events:,}", f"{len(each.batches):,}", f"{each.bytes / 1e3:,.0f}"]
        figures = ("seconds", "frames", "longest", "blocked")
        cells += [
            f"{page[name]:,.1f}" if name == "seconds" else f"{page[name]:,.0f}" for name in figures if page
        ]
        lines.append(
            "  ".join(f"{cell:>{max(8, len(name))}}" for cell, name in zip(cells, head, strict=False))
        )
    rows_shown = max((int(each.page.get("rows", 0)) for each in phases), default=0)
    lines.append(f"rows of the tree: {rows_shown:,}" if rows_shown else f"no page: {reason}")
    lines.append("saved: " + ", ".join(f"{name} {size / 1e3:,.1f} KB" for name, size in sizes.items()))
    sys.stdout.write("\n".join(lines) + "\n")


def _run(calls: int) -> Iterator[ev.Event]:
    """Yield a run of turns with a batch of at most 200 calls each, and a last turn that is being written."""
    yield ev.RunStarted(
        run="r1", query="What do all parts say?", model="big", sub_model="small", repl="local"
    )
    turn = 0
    for first in range(0, calls, _BATCH_CALLS):
        turn += 1
        yield ev.CallStarted(run="r1", call=f"c{turn}", kind="root", turn=turn, depth=0, model="big")
        used = Usage(4000, 90, 3000, 0, Decimal("0.006"))
        yield ev.CallFinished(
            run="r1", call=f"c{turn}", text="The next parts. " * 20, model="big", usage=used
        )
        yield ev.CellStarted(
            run="r1", cell=f"x{turn}", turn=turn, block=1, code="found = llm_query_batched(...)"
        )
        batch = range(first, min(calls, first + _BATCH_CALLS))
        for call in batch:
            prompt: Any = {
                "role": "user",
                "content": f"What does part {call} say? " + "Words of the part. " * 200,
            }
            yield ev.CallStarted(
                run="r1",
                call=f"s{call}",
                kind="llm_query",
                turn=turn,
                depth=1,
                model="small",
                cell=f"x{turn}",
                batch=f"b{turn}",
                index=call - first,
                messages=(prompt,),
            )
        for call in batch:
            used = Usage(900, 30, 256, 0, Decimal("0.0003"))
            text = f"Part {call} says that " + "a few words " * 20
            yield ev.CallFinished(
                run="r1", call=f"s{call}", text=text, model="small", usage=used, seconds=1.0
            )
        yield ev.CellFinished(run="r1", cell=f"x{turn}", status="ok", seconds=1.5)
    yield ev.CallStarted(run="r1", call="last", kind="root", turn=turn + 1, depth=0, model="big")


async def _feed(events: list[ev.Event], seconds: float) -> list[Phase]:
    phase = Phase("")
    start = 0.0

    def send(batch: dict[str, Any]) -> None:
        phase.batches.append((time.perf_counter() - start, batch["events"]))
        phase.bytes += len(json.dumps(batch))

    feed = Feed(send, str)

    def take(event: ev.Event) -> None:
        phase.events += 1
        feed.take(event)

    phases = []
    for name in ("build", "burst", "paced"):
        phase = Phase(name)
        start = time.perf_counter()
        if name == "build":
            for number, event in enumerate(events):
                take(event)
                if number % 100 == 0:
                    await asyncio.sleep(0)
        elif name == "burst":
            for number in range(BURST_DELTAS):
                take(ev.CallDelta(run="r1", call="last", text=f"word{number} "))
                if number % 100 == 0:
                    await asyncio.sleep(0)
        else:
            for number in range(int(seconds * DELTAS_PER_SECOND)):
                due = start + number / DELTAS_PER_SECOND - time.perf_counter()
                if due > 0:
                    await asyncio.sleep(due)
                take(ev.CallDelta(run="r1", call="last", text=f"word{number} "))
        feed.flush()
        phases.append(phase)
    return phases


def _in_a_page(phases: list[Phase]) -> str:
    """Replay the phases to a page, one after the other; return why that can't be, or an empty text."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        return "there is no chromium on this machine"
    try:
        from playwright.sync_api import sync_playwright  # noqa: PLC0415  on use
    except ImportError:
        return "Playwright is not installed (pip install playwright)"

    def serve(route: Any) -> None:
        name = route.request.url.rsplit("/", 1)[1]
        if name in ("tree.js", "panel.css"):
            route.fulfill(path=STATIC / name)
        else:
            route.fulfill(body=_PAGE, content_type="text/html")

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(_ARGS))
        page = browser.new_page(viewport={"width": 1200, "height": 700})
        page.route("**/*", serve)
        page.goto("http://panel.test/")
        page.wait_for_function("window.view !== undefined")
        for phase in phases:
            phase.page = page.evaluate(_REPLAY, phase.batches)
        browser.close()
    return ""
