"""The way to a gateway's kernel, one step after the other, so that the first that fails has a name.

Steps build on each other: the walk ends with the first that fails. The last one is about what must *not*
work: code in the kernel tries to reach this machine, which listens for it where the gateway sees it.
"""

from __future__ import annotations

import asyncio
import ipaddress
import secrets
import socket
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from ...errors import CallError, ConfigError, KernelStartError
from ..base import CellResult
from .address import Gateway, Health
from .predecessor import refuse_predecessor
from .rest import GatewayRefusedError, Rest
from .session import GatewaySession
from .transport import GatewayTransport

__all__ = ["Step", "walk"]

STEP_SECONDS = 10.0
CELL_SECONDS = 30.0
# Connecting a datagram socket asks for a route, and sends nothing; the address is nobody's (RFC 5737).
_PROBE = """\
def _rlm_probe(host, port, word):
    import socket
    try:
        with socket.create_connection((host, port), timeout=5) as line:
            line.sendall(word.encode())
            line.recv(1)
        said = ""
    except BaseException as error:
        said = type(error).__name__ + ": " + str(error)
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
            line.connect(("192.0.2.1", 9))
        route = True
    except BaseException:
        route = False
    return [said[:200], route]
FINAL(_rlm_probe({host!r}, {port}, {word!r}))
del _rlm_probe
"""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the way; ``hint`` says what to do where it failed, or what to know where it did not."""

    name: str
    ok: bool
    text: str
    hint: str = ""


async def walk(gateway: Gateway) -> AsyncGenerator[Step]:
    """Yield the steps to a cell in a kernel of ``gateway``, up to the first that fails; ends that kernel."""
    parts = urlsplit(gateway.url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    found, step = await _name(host, port)
    yield step
    if not found:
        return
    here, step = await _tcp(found, port)
    yield step
    if not here:
        return
    if parts.scheme == "https":
        step = await _tls(host, port)
        yield step
        if not step.ok:
            return
    health, step = await _token(gateway)
    yield step
    if health is None:
        return
    step = _kernelspec(gateway, health)
    yield step
    if not step.ok:
        return
    session = GatewaySession(GatewayTransport(gateway))
    try:
        for attempt in (_start, _cell, partial(_egress, here=here)):
            step = await attempt(session)
            yield step
            if not step.ok:
                return
    finally:
        await session.close()


async def _name(host: str, port: int) -> tuple[list[str], Step]:
    try:
        async with asyncio.timeout(STEP_SECONDS):
            loop = asyncio.get_running_loop()
            told = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError, UnicodeError) as error:
        why = _why(error)
        return [], Step("name", ok=False, text=f"{host} has no address: {why}", hint=_NAME_HINT)
    found = list(dict.fromkeys(str(each[4][0]) for each in told))
    if found == [host]:
        return found, Step("name", ok=True, text=f"{host} is an address")
    return found, Step("name", ok=True, text=f"{host} is {', '.join(found)}")


_NAME_HINT = "is the name right, and does this machine's name server, VPN or hosts file know it?"


async def _tcp(found: Sequence[str], port: int) -> tuple[str, Step]:
    """Return which address of this machine leads there; empty if none does."""
    refused = []
    for address in found:
        started = time.perf_counter()
        try:
            async with asyncio.timeout(STEP_SECONDS):
                _, writer = await asyncio.open_connection(address, port)
        except (OSError, TimeoutError) as error:
            refused.append(f"{address} port {port}: {_why(error)}")
            continue
        here = str(writer.get_extra_info("sockname")[0])
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
        text = f"{address} port {port} takes connections, in {1000 * (time.perf_counter() - started):.0f} ms"
        return here, Step("tcp", ok=True, text=text)
    hint = "is the gateway running, on this port, and is nothing between that forbids it?"
    return "", Step("tcp", ok=False, text=f"no connection: {'; '.join(refused)}", hint=hint)


async def _tls(host: str, port: int) -> Step:
    context = ssl.create_default_context()
    try:
        async with asyncio.timeout(STEP_SECONDS):
            _, writer = await asyncio.open_connection(host, port, ssl=context, server_hostname=host)
    except ssl.SSLCertVerificationError as error:
        text = f"the certificate is not trusted: {error.verify_message}"
        hint = "SSL_CERT_FILE names the file with the authorities to trust; it is not to be switched off"
        return Step("tls", ok=False, text=text, hint=hint)
    except (ssl.SSLError, OSError, TimeoutError) as error:
        text = f"no TLS connection to {host} port {port}: {_why(error)}"
        return Step("tls", ok=False, text=text, hint="does it speak https there, and not plain http?")
    try:
        line = writer.get_extra_info("ssl_object")
        until = (line.getpeercert() or {}).get("notAfter", "?")
        return Step("tls", ok=True, text=f"{line.version()}, the certificate is trusted, until {until}")
    finally:
        writer.close()
        with suppress(OSError, ssl.SSLError):
            await writer.wait_closed()


async def _token(gateway: Gateway) -> tuple[Health | None, Step]:
    try:
        try:
            async with Rest(gateway) as rest:
                health = await rest.health()
        except KernelStartError:
            await refuse_predecessor(gateway)
            raise
    except GatewayRefusedError as error:
        name = "token" if error.status in (401, 403) else "gateway"
        return None, Step(name, ok=False, text=str(error), hint=error.hint)
    except (KernelStartError, ConfigError) as error:
        return None, Step("gateway", ok=False, text=str(error), hint=error.hint)
    if await _open_to_all(gateway):
        what = "it is taken, but nothing is refused without it" if gateway.token else "none is asked for"
        hint = "whoever reaches this gateway can start kernels: start it with a token"
        return health, Step("token", ok=True, text=what, hint=hint)
    return health, Step("token", ok=True, text="it is taken, and nothing is answered without it")


async def _open_to_all(gateway: Gateway) -> bool:
    try:
        async with Rest(replace(gateway, token="")) as rest:
            await rest.health()
    except (KernelStartError, ConfigError):
        return False
    return True


def _kernelspec(gateway: Gateway, health: Health) -> Step:
    name = gateway.kernel_name or health.default
    known = ", ".join(health.kernelspecs) or "none"
    if name not in health.kernelspecs:
        text = f"there is none named {name!r}; there are: {known}"
        return Step("kernelspec", ok=False, text=text, hint="give one of them as --kernel-name")
    version = f", version {health.version}" if health.version else ""
    return Step("kernelspec", ok=True, text=f"{name}, of {known}{version}")


async def _start(session: GatewaySession) -> Step:
    started = time.perf_counter()
    try:
        await session.prepare()
    except KernelStartError as error:
        hint = "the gateway's log tells why" if "doctor" in error.hint else error.hint
        return Step("start", ok=False, text=str(error), hint=hint)
    return Step("start", ok=True, text=f"a kernel was ready in {time.perf_counter() - started:.2f} s")


async def _cell(session: GatewaySession) -> Step:
    started = time.perf_counter()
    result = await _execute(session, "6 * 7")
    shown = [output.text for output in result.outputs if output.kind == "result"]
    if result.status != "ok" or shown != ["42"]:
        text = f"it ended as {result.status} with {shown!r} {result.lost}".rstrip()
        hint = "the gateway's log tells more; a proxy before it must let websockets through"
        return Step("first cell", ok=False, text=text, hint=hint)
    return Step("first cell", ok=True, text=f"it took {1000 * (time.perf_counter() - started):.0f} ms")


async def _egress(session: GatewaySession, here: str) -> Step:
    async with _listening(here) as heard:
        result = await _execute(session, _PROBE.format(host=here, port=heard.port, word=heard.word))
    match result.final.value if result.final is not None else None:
        case [str(said), bool(route)]:
            pass
        case _:
            said, route = f"the cell ended as {result.status}", False
    if heard.reached:
        where = "the gateway's own machine" if ipaddress.ip_address(here).is_loopback else "this machine"
        return Step("egress", ok=False, text=f"code in the kernel can reach {where}, at {here}", hint=_EGRESS)
    hint = ""
    if route:
        hint = "its machine has a route outwards all the same: only this address was tried, and what stopped "
        hint += "it may have been a firewall on this side"
    return Step(
        "egress", ok=True, text=f"refused: code in the kernel did not reach {here} ({said})", hint=hint
    )


_EGRESS = (
    "give a kernelspec without a network as --kernel-name, such as rlm-pyodide or rlm-sandbox, or deny the "
    "gateway's machine all outgoing connections; without either, use it for code that you trust"
)


@dataclass(slots=True)
class _Heard:
    port: int = 0
    word: str = field(default_factory=lambda: secrets.token_hex(16))
    reached: bool = False


@asynccontextmanager
async def _listening(host: str) -> AsyncIterator[_Heard]:
    heard = _Heard()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(STEP_SECONDS):
                # What else may find the port does not know the word.
                heard.reached |= await reader.readexactly(len(heard.word)) == heard.word.encode()
                writer.write(b"!")
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, host, 0)
    heard.port = server.sockets[0].getsockname()[1]
    try:
        yield heard
    finally:
        server.close()
        await server.wait_closed()


async def _execute(session: GatewaySession, code: str) -> CellResult:
    return await session.execute(code, timeout=CELL_SECONDS, on_call=_no_calls)


async def _no_calls(call: object) -> Sequence[Any]:
    raise CallError("the doctor answers no calls", kind="internal")


def _why(error: BaseException) -> str:
    if isinstance(error, TimeoutError) and not str(error):
        return f"nothing for {STEP_SECONDS:g} s"
    return str(getattr(error, "strerror", None) or error) or type(error).__name__
