"""One run from the command line: contexts in, a live view, the answer out, a trajectory left behind.

The live view ends with the answer and goes to stdout. With ``--quiet`` there is no view and stdout holds the
answer alone; with ``--json`` the view goes to stderr and stdout holds one JSON object.
"""

from __future__ import annotations

import _thread
import argparse
import contextlib
import json
import os
import secrets
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .cli import complain
from .config import Setting, resolve
from .errors import ContextError, InputError

if TYPE_CHECKING:
    from .answer import Answer
    from .events import Event, RunStatus
    from .models.prices import Price
    from .rlm import RLM
    from .trace.console import ConsoleReader

__all__ = ["ask", "build", "run", "settings_of"]

_OPTIONS = (
    *("model", "sub_model", "base_url", "api", "direct_below", "repl"),
    *("gateway_url", "kernel_name", "gateway_insecure"),
    *("max_depth", "max_iterations", "cell_timeout"),
    *("budget_usd", "budget_tokens", "budget_calls", "budget_seconds", "budget_errors"),
)


def run(args: argparse.Namespace) -> RunStatus:
    """Answer ``args.question`` over ``args.context``; return the outcome."""
    settings = settings_of(args)
    prices = prices_of(args.price)
    with build(settings, prices) as rlm:
        contexts = _read_contexts(args.context, quiet=args.quiet)
        return ask(rlm, args, args.question.strip(), contexts, settings).status


def export(args: argparse.Namespace) -> int:
    """Write the run in ``args.trajectory`` to ``args.out``."""
    from .notebook.exporting import export as write  # noqa: PLC0415  on use

    if Path(args.out).exists() and not args.force:
        raise InputError(f"{args.out} is there already", hint="--force writes over it")
    key = resolve({})["api_key"].value
    contexts = _read_contexts(args.context, quiet=True)
    files = write(args.trajectory, args.out, contexts=contexts, secrets=[key] if key else [])
    _write("\n".join(map(str, files)))
    return 0


def settings_of(args: argparse.Namespace) -> dict[str, Setting]:
    """Return every setting, the options in ``args`` among them."""
    return resolve({name: getattr(args, name) for name in _OPTIONS})


def prices_of(given: Sequence[tuple[str, tuple[str, ...]]]) -> dict[str, Price]:
    """Return the prices given as (model, USD per million tokens: input, output, cached input)."""
    from .models.prices import Price  # noqa: PLC0415  on use

    return {model: Price(*map(Decimal, amounts)) for model, amounts in given}


def build(settings: Mapping[str, Setting], prices: Mapping[str, Price]) -> RLM:
    """Make the `RLM` that ``settings`` describe."""
    from .ledger import Budget  # noqa: PLC0415  heavy
    from .rlm import RLM  # noqa: PLC0415  heavy

    caps = {
        name.removeprefix("budget_"): setting.value
        for name, setting in settings.items()
        if name.startswith("budget_") and setting.value is not None
    }
    names = (
        "model",
        "sub_model",
        "base_url",
        "api_key",
        "api",
        "direct_below",
        "repl",
        "gateway_url",
        "gateway_token",
        "kernel_name",
        "gateway_insecure",
        "max_depth",
        "max_iterations",
        "cell_timeout",
    )
    return RLM(
        **{name: settings[name].value for name in names},
        budget=Budget(**caps) if caps else None,
        prices=prices or None,
        spare_kernels=0,  # one run is all that follows
    )


def ask(
    rlm: RLM,
    args: argparse.Namespace,
    question: str,
    contexts: Mapping[str, Any],
    settings: Mapping[str, Setting],
) -> Answer:
    """Run, show it as ``args`` ask for, print the answer, save the trajectory."""
    path = None
    with contextlib.ExitStack() as stack:
        readers: list[Callable[[Event], None]] = []
        if not args.quiet:
            readers.append(stack.enter_context(_view(args)))
        if not args.no_save:
            path, writer = _trajectory(args.save, settings)
            if writer is not None:
                readers.append(stack.enter_context(writer))
        options: dict[str, Any] = {"cite": getattr(args, "cite", False), "readers": readers}
        name = getattr(args, "session", None)
        if name is None:
            answer = rlm.completion(query=question, contexts=dict(contexts), **options)
        else:
            session = stack.enter_context(rlm.session(contexts=dict(contexts), name=name))
            answer = session.ask(question, **options)
    if args.json:
        _write(json.dumps({**answer.to_json(), "trace": None if path is None else str(path)}, default=repr))
    elif args.quiet:
        from .trace.progress import clean  # noqa: PLC0415  on use

        # A pipe gets every letter; a terminal would obey escape sequences.
        _write(clean(answer.text) if sys.stdout.isatty() else answer.text)
    elif path is not None:
        _write(f"Trajectory: {path}")
    if not answer:
        hint = _HINTS.get(str(answer.status), "")
        if answer.status == "failed" and settings["repl"].value == "gateway":
            hint += "; `jupyter rlm doctor --gateway` walks to the gateway"
        complain(f"{answer.status}: {answer.reason or 'no answer'}", hint)
    return answer


_HINTS = {
    "exhausted": "what is printed is a best effort; --iterations allows more turns",
    "over_budget": "the --budget options raise the caps; the trajectory holds what was found so far",
    "timed_out": "--budget-seconds allows more time; the trajectory holds what was found so far",
    "failed": "`jupyter rlm doctor --endpoint` checks kernel and endpoint",
}


def _view(args: argparse.Namespace) -> ConsoleReader:
    from rich.console import Console  # noqa: PLC0415  heavy

    from .trace.console import ConsoleReader  # noqa: PLC0415  heavy

    class Pipe(Console):
        def on_broken_pipe(self) -> None:
            # Rich would end this thread, which is the event loop's. Nobody is reading: end the run instead.
            self.quiet = True
            _to_nowhere(self.file.fileno())
            _thread.interrupt_main()

    return ConsoleReader(Pipe(stderr=args.json), plain=args.plain)


def _to_nowhere(descriptor: int) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


def _trajectory(save: str | None, settings: Mapping[str, Setting]) -> tuple[Path | None, Any]:
    """Open the trajectory. A run goes on without one, and says so."""
    from .trace.jsonl import JsonlWriter  # noqa: PLC0415  on use

    name = f"{time.strftime('%Y%m%dT%H%M%S')}-{secrets.token_hex(3)}.jsonl"
    path = Path(save) if save else Path(".rlm", "traces", name)
    key = settings["api_key"].value
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix in (".ipynb", ".html", ".md"):
            from .notebook.exporting import Saver  # noqa: PLC0415  on use

            return path, Saver(path, secrets=[key] if key else [])
        return path, JsonlWriter(path, secrets=[key] if key else [])
    except OSError as error:
        complain(f"the trajectory can't be written to {path}: {error.strerror}", "the run goes on without it")
        return None, None


def _read_contexts(given: Sequence[str], *, quiet: bool) -> dict[str, Any]:
    """Return the contexts by name; paths given without a name are `context` together.

    What is not as one would expect is told on stderr. Refused files are told by the view, if there is one.
    """
    from .files import read_paths  # noqa: PLC0415  on use

    patterns: dict[str, list[str]] = {}
    for item in given:
        name, equals, path = item.partition("=")
        named = equals and name.isidentifier() and path and not Path(item).exists()
        patterns.setdefault(name if named else "context", []).append(path if named else item)
    if sum(paths.count("-") for paths in patterns.values()) > 1:
        raise ContextError("standard input is given as a context twice", hint="give --context - once")
    contexts = {}
    for name, paths in patterns.items():
        loaded = read_paths(paths)
        contexts[name] = loaded
        refusals = [loaded.reading.refusals()] if quiet and loaded.reading.refused else []
        for note in (*loaded.notes, *loaded.reading.legend, *refusals):
            sys.stderr.write(f"{name}: {note}\n")
    return contexts


def _write(text: str) -> None:
    # Lone surrogates in an answer must not end in a traceback.
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "replace").decode(encoding) + "\n")
