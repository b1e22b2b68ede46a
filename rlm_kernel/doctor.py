"""``jupyter rlm doctor``: what works on this machine, in lines of facts, each with what to do about it.

A fact is ``ok``, ``note`` (worth knowing, nothing is broken) or ``fail`` (something needed does not work).
Keys are never printed in full.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import json
import platform
import re
import sys
import time
from collections.abc import AsyncGenerator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from .config import FIELDS, Setting, resolve
from .errors import (
    AuthError,
    CallError,
    ConfigError,
    EndpointError,
    MalformedReplyError,
    RLMError,
    UnreachableError,
)
from .isolation import table

if TYPE_CHECKING:
    from .repl.gateway.walk import Step

__all__ = ["Fact", "doctor", "facts", "gateway_facts", "model_names"]

DISTRIBUTION = "rlm-kernel"
BASE = ("aiohttp", "anywidget", "ipykernel", "ipywidgets", "jupyter-client", "nbformat", "openai", "rich")
CELL_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Fact:
    """One line of the report; ``hint`` says what to do."""

    state: Literal["ok", "note", "fail"]
    text: str
    hint: str = ""


def doctor(args: argparse.Namespace) -> int:
    """Print every fact; return 1 when something needed does not work, else 0."""
    failed = False
    for fact in facts(args) if getattr(args, "gateway", None) is None else gateway_facts(args):
        sys.stdout.write(f"{fact.state:<5} {fact.text}\n")
        if fact.hint:
            sys.stdout.write(f"      -> {fact.hint}\n")
        sys.stdout.flush()
        failed = failed or fact.state == "fail"
    return int(failed)


def facts(args: argparse.Namespace, settings: Mapping[str, Setting] | None = None) -> Iterator[Fact]:
    """Yield every fact; ``settings`` are those that hold, if not those of ``args`` and the environment.

    It runs event loops of its own: not for a thread that runs one.
    """
    yield _python()
    yield from _packages()
    yield from _extras()
    yield _labextension()
    try:
        settings = settings or resolve({"model": args.model, "base_url": args.base_url})
    except ConfigError as error:
        yield Fact("fail", f"settings: {error}", error.hint)
        settings = {}
    yield from _settings(settings)
    yield from asyncio.run(_kernel())
    yield from _confinement()
    yield from _sandbox()
    yield _pyodide()
    yield from _isolation()
    if settings and args.endpoint:
        yield asyncio.run(_endpoint(settings))


def gateway_facts(args: argparse.Namespace) -> Iterator[Fact]:
    """Yield a fact for each step of the way to a cell on a gateway, up to the first that fails.

    It runs an event loop of its own: not for a thread that runs one.
    """
    from .repl.gateway.address import Gateway  # noqa: PLC0415  on use
    from .repl.gateway.walk import walk  # noqa: PLC0415  heavy

    options = {
        "gateway_url": args.gateway or None,
        "kernel_name": args.kernel_name,
        "gateway_insecure": args.gateway_insecure,
    }
    try:
        settings = resolve(options)
        gateway = Gateway.of({name: setting.value for name, setting in settings.items()})
    except ConfigError as error:
        yield Fact("fail", f"address: {error}", error.hint)
        return
    with asyncio.Runner() as runner:
        steps = walk(gateway)
        try:
            while (step := runner.run(_next(steps))) is not None:
                yield Fact("ok" if step.ok else "fail", f"{step.name}: {step.text}", step.hint)
        finally:
            runner.run(steps.aclose())


async def _next(steps: AsyncGenerator[Step]) -> Step | None:
    return await anext(steps, None)


def _confinement() -> Iterator[Fact]:
    from .kernels.confine import report  # noqa: PLC0415  on use

    missing = {name: why for name, why in report().items() if why}
    holds = ", ".join(name for name in report() if name not in missing)
    yield Fact("ok" if holds else "note", f"confinement of kernels: {holds or 'nothing holds here'}")
    for name, why in missing.items():
        yield Fact(
            "note",
            f"confinement of kernels: {name} does not hold: {why}",
            "keep the key out of this machine's environments, or run in a container; see docs/secrets.md",
        )


def _sandbox() -> Iterator[Fact]:
    from .kernels.syscalls import supported  # noqa: PLC0415  on use
    from .repl.sandbox.cgroup import available  # noqa: PLC0415  on use
    from .repl.sandbox.machine import SandboxUnavailableError, machine  # noqa: PLC0415  on use

    try:
        found = machine()
    except SandboxUnavailableError as error:
        yield Fact("note", f"sandbox: not here: {error}", error.hint)
        return
    how = "made as root, left for a uid of its own" if found.as_root else "in a user namespace"
    yield Fact("ok", f"sandbox: bubblewrap {found.version}, {how}")
    if not supported():
        yield Fact("note", "sandbox: no filter of system calls for this machine; the rest of it holds")
    tree = available().keys()
    if tree:
        yield Fact("ok", f"sandbox: limits for the whole tree of processes: {', '.join(sorted(tree))}")
    if "memory" not in tree:
        yield Fact(
            "note",
            "sandbox: memory is limited per process only, so that many processes can take more",
            "run as root, or where systemd delegates control groups to you",
        )


def _pyodide() -> Fact:
    from .repl.pyodide.runtime import VERSION, deno_command, find  # noqa: PLC0415  on use

    try:
        deno_command()
    except ConfigError as error:
        return Fact("note", f"pyodide: not here: {error}", error.hint)
    if find() is None:
        return Fact("note", f"pyodide: Pyodide {VERSION} is fetched at first use", "jupyter rlm warmup")
    return Fact("ok", f"pyodide: Pyodide {VERSION} and its snapshot are in place")


def _isolation() -> Iterator[Fact]:
    """Tell what code that a model writes can reach, by backend; docs/sandboxes.md has the same table."""
    head, *rows = table()
    for row in rows:
        cells = "; ".join(f"{name}: {text}" for name, text in zip(head[1:], row[1:], strict=True))
        yield Fact("note", f"isolation of `{row[0]}`: {cells}")


def _python() -> Fact:
    text = f"Python {platform.python_version()} at {sys.executable}, {platform.platform(terse=True)}"
    if sys.platform == "win32":
        return Fact("note", text, "on Windows the `local` repl runs over tcp; Linux and macOS come first")
    return Fact("ok", text)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _packages() -> Iterator[Fact]:
    versions = {name: _version(name) for name in (DISTRIBUTION, *BASE)}
    found = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    yield Fact("ok", f"packages: {found}")
    missing = [name for name in BASE if not versions[name]]
    if missing:
        yield Fact("fail", f"missing packages: {', '.join(missing)}", f"pip install {' '.join(missing)}")


def _extras() -> Iterator[Fact]:
    """Tell of each extra whether what it lists is there."""
    try:
        metadata = importlib.metadata.metadata(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        yield Fact("note", "extras: not known, rlm-kernel runs from a source tree", "pip install -e .")
        return
    needs: dict[str, list[str]] = {}
    for line in metadata.get_all("Requires-Dist") or []:
        if found := re.match(r"""([\w.-]+).*\bextra\s*==\s*["']([\w.-]+)""", line):
            needs.setdefault(found[2], []).append(found[1])
    for extra, names in sorted(needs.items()):
        if extra in {"docs", "test"}:
            continue
        missing = [name for name in names if not _version(name)]
        if missing:
            yield Fact(
                "note",
                f"extra {extra}: not installed ({', '.join(missing)})",
                f"if you want it: pip install '{DISTRIBUTION}[{extra}]'",
            )
        else:
            yield Fact("ok", f"extra {extra}: {', '.join(f'{name} {_version(name)}' for name in names)}")


def _labextension() -> Fact:
    """Tell whether JupyterLab and Jupyter Notebook find the extension, which wheels have and clones build."""
    from jupyter_core.paths import jupyter_path  # noqa: PLC0415  on use

    name = "JupyterLab extension"
    for folder in map(Path, jupyter_path("labextensions")):
        if (folder / "@rlm-kernel" / "labextension" / "package.json").is_file():
            return Fact("ok", f"{name}: in {folder}")
    return Fact(
        "note",
        f"{name}: not here; runs show in notebooks all the same, without its side panel and its files",
        "wheels have it; in a clone, with Node: make extension, then pip install . again",
    )


def _settings(settings: Mapping[str, Setting]) -> Iterator[Fact]:
    for setting in settings.values():
        if setting.name == "api_key" and setting.value is None:
            variables = next(field.variables for field in FIELDS if field.name == "api_key")
            yield Fact(
                "note",
                "api_key not set: OpenAI's endpoint will refuse; most local servers need none",
                f"set {variables[0]}, or OPENAI_BASE_URL for another endpoint; `jupyter rlm demo` needs none",
            )
        elif setting.name == "model" and setting.value is None:
            yield Fact("note", "model not set, and base_url is not OpenAI's", "set RLM_MODEL or give --model")
        elif setting.origin == "not set":
            yield Fact("ok", f"{setting.name} not set")
        else:
            yield Fact("ok", f"{setting.name} = {setting.shown} ({setting.origin})")


async def _kernel() -> list[Fact]:
    """Start a local kernel, execute a cell, end it."""
    try:
        from .repl.local import LocalTransport  # noqa: PLC0415  heavy
        from .repl.session import JupyterSession  # noqa: PLC0415  heavy
    except ImportError as error:
        return [Fact("fail", f"kernel: {error}", "install the missing packages")]
    session = JupyterSession(LocalTransport())
    start = time.perf_counter()
    try:
        info = await session.start([])
        ready = time.perf_counter()
        result = await session.execute("6 * 7", timeout=CELL_SECONDS, on_call=_no_calls)
        done = time.perf_counter()
    except (RLMError, OSError) as error:
        return [Fact("fail", f"kernel: {error}", getattr(error, "hint", ""))]
    finally:
        await session.close()
    shown = [output.text for output in result.outputs if output.kind == "result"]
    if result.status != "ok" or shown != ["42"]:
        return [
            Fact("fail", f"kernel: a cell ended as {result.status} with {shown!r}", "reinstall ipykernel")
        ]
    capabilities = [name if there else f"no {name}" for name, there in sorted(info.capabilities.items())]
    return [
        Fact(
            "ok",
            f"kernel: {info.implementation} started in {ready - start:.2f} s, a cell took "
            f"{(done - ready) * 1000:.0f} ms" + (f"; {', '.join(capabilities)}" if capabilities else ""),
        )
    ]


async def _no_calls(call: object) -> list[CallError]:
    raise CallError(f"doctor answers no calls, not {call!r}", kind="internal")


async def _endpoint(settings: Mapping[str, Setting]) -> Fact:
    """Ask the endpoint which models it has."""
    given = settings["base_url"]
    where = given.shown if given.value else "https://api.openai.com/v1"
    model = settings["model"].value
    try:
        names = await model_names(given.value or where, settings["api_key"].value)
    except RLMError as error:
        return Fact("fail", f"endpoint {where}: {error}", error.hint)
    if model is not None and model not in names:
        known = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
        return Fact("fail", f"endpoint {where}: it has no model {model}", f"it has {known}; give --model")
    return Fact("ok", f"endpoint {where}: {len(names)} models" + (f", {model} among them" if model else ""))


async def model_names(base_url: str, key: str | None) -> list[str]:
    """Return the names of the models that an endpoint lists.

    Raises:
        ModelError: it does not tell.
    """
    import aiohttp  # noqa: PLC0415  heavy

    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        async with (
            aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(total=20)) as client,
            client.get(f"{base_url}/models") as response,
        ):
            status, body = response.status, await response.read()
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
        # The library's words may quote the URL, and with it a password.
        raise UnreachableError(
            f"no answer ({type(error).__name__})", hint="check the base URL and the network"
        ) from None
    if status in {401, 403}:
        raise AuthError(f"it refused the key ({status})", hint="check OPENAI_API_KEY")
    if status != 200:
        raise EndpointError(f"GET /models gave {status}", hint="check the base URL")
    try:
        return sorted(str(each["id"]) for each in json.loads(body)["data"])
    except (ValueError, KeyError, TypeError):
        raise MalformedReplyError("its reply is no list of models", hint="check the base URL") from None
