"""A gateway's REST API, as far as kernels need it. Every failure is a typed error that names the gateway.

Redirects are not followed: the token is for the address that was given, and for no other.
"""

from __future__ import annotations

import getpass
import os
from types import TracebackType
from typing import Any

import aiohttp

from ...errors import KernelStartError
from .address import Gateway, Health

__all__ = ["GatewayRefusedError", "GatewayUnreachableError", "Rest"]

CONNECT_SECONDS = 10.0
REPLY_SECONDS = 30.0
# A gateway may have a pod made, and an image fetched, for a kernel.
START_SECONDS = 300.0


class GatewayUnreachableError(KernelStartError):
    """No connection to the gateway, or no usable reply: it may come back. ``status`` is HTTP's, or 0."""

    status = 0


class GatewayRefusedError(KernelStartError):
    """The gateway refuses: asking again does not help. ``status`` is HTTP's."""

    def __init__(self, message: str, *, status: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status


class Rest:
    """The REST API of one gateway, on one event loop; a context manager, or `close` it."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self.client = aiohttp.ClientSession(
            headers=gateway.headers,
            cookie_jar=aiohttp.DummyCookieJar(),
            # Requests have limits of their own, and the making of a websocket its caller's.
            timeout=aiohttp.ClientTimeout(sock_connect=CONNECT_SECONDS),
        )

    async def health(self) -> Health:
        """Return what the gateway says of itself; see `Gateway.health_check`."""
        specs = await self._ask("GET", "kernelspecs")
        names = specs.get("kernelspecs") if isinstance(specs, dict) else None
        if not isinstance(names, dict):
            raise GatewayUnreachableError(
                f"what answers at {self._gateway.url} is no Jupyter server",
                hint="give the address under which api/kernelspecs is found",
            )
        try:
            version = await self._ask("GET")
        except GatewayRefusedError:
            version = {}  # Not every gateway tells it.
        said = version.get("version", "") if isinstance(version, dict) else ""
        return Health(tuple(sorted(map(str, names))), str(specs.get("default", "")), str(said)[:100])

    async def start(self, env: dict[str, str]) -> str:
        """Start a kernel and return its id.

        Raises:
            GatewayUnreachableError: there is no gateway.
            GatewayRefusedError: it starts none.
        """
        asked: dict[str, Any] = {"env": env}
        if self._gateway.kernel_name:
            asked["name"] = self._gateway.kernel_name
        try:
            model = await self._ask("POST", "kernels", body=asked, seconds=START_SECONDS)
        except GatewayRefusedError as error:
            if error.status != 403:
                raise
            # The token was good enough until now.
            raise GatewayRefusedError(
                f"the gateway at {self._gateway.url} starts no kernel: {error}",
                status=403,
                hint="it may limit how many there are, or who may start them",
            ) from None
        id_ = model.get("id") if isinstance(model, dict) else None
        if not isinstance(id_, str) or not id_:
            raise GatewayUnreachableError(f"{self._gateway.url} started a kernel and told no id of it")
        return id_

    async def state(self, kernel: str) -> str | None:
        """Return the execution state of a kernel; None if there is none of this id."""
        try:
            model = await self._ask("GET", "kernels", kernel)
        except GatewayRefusedError as error:
            if error.status == 404:
                return None
            raise
        return str(model.get("execution_state", "")) if isinstance(model, dict) else ""

    async def interrupt(self, kernel: str) -> None:
        """Interrupt what a kernel executes."""
        await self._ask("POST", "kernels", kernel, "interrupt", seconds=5.0)

    async def delete(self, kernel: str) -> None:
        """End a kernel, which may be gone already."""
        try:
            await self._ask("DELETE", "kernels", kernel)
        except GatewayRefusedError as error:
            if error.status != 404:
                raise

    async def _ask(self, method: str, *path: str, body: Any = None, seconds: float = REPLY_SECONDS) -> Any:
        url = self._gateway.api(*path)
        timeout = aiohttp.ClientTimeout(seconds, sock_connect=CONNECT_SECONDS)
        try:
            async with self.client.request(
                method, url, json=body, allow_redirects=False, timeout=timeout
            ) as response:
                if response.status >= 300:
                    raise _refusal(self._gateway.url, response.status, await _said(response))
                return None if response.status == 204 else await response.json(content_type=None)
        except aiohttp.ClientConnectorCertificateError as error:
            raise GatewayRefusedError(
                f"the certificate of {self._gateway.url} is not trusted: {error.certificate_error}",
                status=0,
                hint="SSL_CERT_FILE names the file with the authorities to trust",
            ) from None
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            why = str(error) or type(error).__name__
            raise GatewayUnreachableError(
                f"no usable reply from the gateway at {self._gateway.url}: {why}"[:500],
                hint="is it running, and is the address right?",
            ) from None

    async def close(self) -> None:
        """Close the connections."""
        await self.client.close()

    async def __aenter__(self) -> Rest:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def start_environment() -> dict[str, str]:
    """Return what a start request says of who asks, as gateways read it: variables named ``KERNEL_...``."""
    env = {name: value for name, value in os.environ.items() if name.startswith("KERNEL_")}
    if "KERNEL_USERNAME" not in env:
        try:
            name = getpass.getuser()
        except (KeyError, OSError):
            name = ""
        # Enterprise Gateway starts nothing for root.
        env["KERNEL_USERNAME"] = name if name and name != "root" else "rlm"
    return env


async def _said(response: aiohttp.ClientResponse) -> str:
    try:
        said = await response.json(content_type=None)
    except (ValueError, aiohttp.ClientError):
        return ""
    parts = [said.get("message"), said.get("reason")] if isinstance(said, dict) else []
    return "; ".join(dict.fromkeys(each for each in parts if isinstance(each, str) and each))[:500]


def _refusal(url: str, status: int, said: str) -> KernelStartError:
    why = f": {said}" if said else ""
    if status in (401, 403) or status < 400:
        return GatewayRefusedError(
            f"the gateway at {url} refuses the token ({status}{why})",
            status=status,
            hint="give its token as gateway_token=, or set RLM_GATEWAY_TOKEN",
        )
    if status >= 500 and status != 501:
        failed = GatewayUnreachableError(
            f"the gateway at {url} failed ({status}{why})", hint="its log tells more"
        )
        failed.status = status
        return failed
    return GatewayRefusedError(
        f"the gateway at {url} refuses the request ({status}{why})",
        status=status,
        hint="is that the address of a Kernel Gateway or a Jupyter Server?",
    )
