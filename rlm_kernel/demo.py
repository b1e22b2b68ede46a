"""``jupyter rlm demo``: a real run over text that every machine has, with or without a model to ask.

The context is the source of the standard library, at least 10 MB. Without a key, the models are scripted:
fixed rules behind an OpenAI-compatible server on this machine, asked over real HTTP. What they answer is
computed from the text by the run; nothing about the text is known beforehand.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import platform
import sys
import sysconfig
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from .config import Setting
from .terminal import ask, build, prices_of, settings_of

if TYPE_CHECKING:
    from .events import RunStatus
    from .models.server import ScriptedServer

__all__ = ["QUESTION", "demo", "library_source"]

QUESTION = "Which file of the standard library defines the most functions, and how many are there in all?"
LEAST_BYTES = 10_000_000
_PACKAGES = frozenset({"site-packages", "dist-packages", "__pycache__"})
_TESTS = frozenset({"test", "tests", "idle_test"})
# For an endpoint that costs money, where no budget is given.
CAUTIOUS_TOKENS = 5_000_000
ROOT_MODEL = "scripted-root"
SUB_MODEL = "scripted-sub"
# USD per million tokens: input, output, cached input.
PRICES = ((ROOT_MODEL, ("1.25", "10", "0.125")), (SUB_MODEL, ("0.25", "2", "0.025")))


def demo(args: argparse.Namespace) -> RunStatus:
    """Run the demonstration; return the outcome."""
    settings = settings_of(args)
    files, size = library_source()
    if not (args.quiet or args.json):
        _say(
            f"Context:  {len(files)} files of Python {platform.python_version()}'s own source, "
            f"{size / 1e6:.1f} MB, as a dict path -> text",
            f"Question: {QUESTION}",
        )
    endpoint = settings["api_key"].value or settings["base_url"].value
    if not (endpoint or str(settings["model"].value).startswith("gguf:")):
        return _scripted(args, settings, files)
    return _asked(args, settings, files)


def _scripted(args: argparse.Namespace, settings: dict[str, Setting], files: dict[str, str]) -> RunStatus:
    from .models.scripted import ScriptedModel  # noqa: PLC0415  heavy
    from .models.server import ScriptedServer  # noqa: PLC0415  heavy

    models = {
        ROOT_MODEL: ScriptedModel("map_reduce", name=ROOT_MODEL, record=False),
        SUB_MODEL: ScriptedModel("reader", name=SUB_MODEL, record=False),
    }
    prices = prices_of([*PRICES, *args.price])
    with _served(ScriptedServer(models, record=False)) as base_url:
        local = {"base_url": base_url, "model": ROOT_MODEL, "sub_model": SUB_MODEL}
        for name, value in local.items():
            settings[name] = Setting(name, value, "demo")
        if not (args.quiet or args.json):
            _say(
                f"Models:   scripted, served on {base_url}, as no key is set. They reply by fixed rules; the",
                "          answer is computed from the text by this run. OPENAI_API_KEY asks a real model.",
                "",
            )
        with build(settings, prices) as rlm:
            answer = ask(rlm, args, QUESTION, {"context": files}, settings)
    if not (args.quiet or args.json):
        _say("Cost:       by prices set for the scripted models, an override; not a real bill")
    return answer.status


def _asked(args: argparse.Namespace, settings: dict[str, Setting], files: dict[str, str]) -> RunStatus:
    if all(setting.value is None for name, setting in settings.items() if name.startswith("budget_")):
        settings["budget_tokens"] = Setting("budget_tokens", CAUTIOUS_TOKENS, "demo")
    if not (args.quiet or args.json):
        caps = [each for name, each in settings.items() if name.startswith("budget_") and each.value]
        where = settings["base_url"].shown if settings["base_url"].value else "api.openai.com"
        at = f"at {where}; this may cost money."
        if settings["model"].shown.startswith("gguf:"):
            at = "on this machine."
        names = [settings["model"].shown, settings["sub_model"].shown]
        _say(
            f"Models:   {names[0]}, sub-model {names[1]}, {at}",
            f"Budget:   {', '.join(f'{each.value:,} {each.name[7:]}' for each in caps)}",
            "",
        )
    with build(settings, prices_of(args.price)) as rlm:
        return ask(rlm, args, QUESTION, {"context": files}, settings).status


@contextlib.contextmanager
def _served(server: ScriptedServer) -> Iterator[str]:
    """Run ``server`` in a thread of its own; yield its base URL."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="scripted-server", daemon=True)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(server.__aenter__(), loop).result()
        try:
            yield server.base_url
        finally:
            asyncio.run_coroutine_threadsafe(server.__aexit__(None, None, None), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def library_source(least: int = LEAST_BYTES) -> tuple[dict[str, str], int]:
    """Return Python's own source, path -> text, and its size in bytes.

    The standard library without its tests; where an installation is cut down below ``least`` bytes, its tests
    and then the installed packages are added. Files that are not UTF-8 are left out.
    """
    library = Path(sysconfig.get_path("stdlib"))
    files: dict[str, str] = {}
    size = 0
    for folder, left_out in (
        (library, _PACKAGES | _TESTS),
        (library, _PACKAGES),
        (Path(sysconfig.get_path("purelib")), frozenset[str]()),
    ):
        for path in _python_files(folder, left_out) if size < least else ():
            name = path.relative_to(folder).as_posix()
            with contextlib.suppress(OSError, UnicodeDecodeError):
                if name not in files:
                    data = path.read_bytes()
                    files[name] = data.decode()
                    size += len(data)
    return files, size


def _python_files(folder: Path, left_out: frozenset[str]) -> Iterator[Path]:
    for at, folders, names in os.walk(folder):
        folders[:] = sorted(set(folders) - left_out)
        yield from (Path(at, name) for name in sorted(names) if name.endswith(".py"))


def _say(*lines: str) -> None:
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()
