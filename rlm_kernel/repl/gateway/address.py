"""Which gateway, how to prove who asks, and what may not happen to the token.

Invariant: the token leaves this module in one header only. It is never part of a URL, of a ``repr`` or of an
error, and never goes over a connection that others can read unless that was asked for.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from ...errors import ConfigError, KernelStartError

if TYPE_CHECKING:
    from ..session import JupyterSession

__all__ = ["WASM_KERNEL", "Gateway", "Health"]

WASM_KERNEL = "rlm-pyodide"
"""The kernelspec whose code runs in WebAssembly."""


@dataclass(frozen=True, slots=True)
class Health:
    """What a gateway said of itself: its kernelspecs by name, the one it starts by default, its version."""

    kernelspecs: tuple[str, ...]
    default: str
    version: str


@dataclass(frozen=True)
class Gateway:
    """A gateway as the user names it; called, it makes a session there that is not started yet.

    ``kernel_name`` is a kernelspec of the gateway's, its default one if empty. ``allow_http`` permits plain
    http to another machine, where everybody on the way can read the token and the contexts.

    Raises:
        ConfigError: no URL, one with a token or a password in it, or plain http to another machine.
    """

    url: str
    token: str = field(default="", repr=False)
    kernel_name: str = ""
    allow_http: bool = False
    _known: list[Health] = field(default_factory=list, init=False, repr=False, compare=False)

    backend = "gateway"

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(
                "repl='gateway' needs the URL of one",
                hint="give gateway_url=, such as http://127.0.0.1:8888, or set RLM_GATEWAY_URL",
            )
        if "@" in parts.netloc or parts.query or parts.fragment:
            raise ConfigError(
                f"the gateway's URL holds more than an address: {parts.scheme}://{parts.hostname}/...",
                hint="URLs end up in logs; give the token as gateway_token=, or set RLM_GATEWAY_TOKEN",
            )
        if parts.scheme == "http" and not self.allow_http and not _is_loopback(parts.hostname):
            raise ConfigError(
                f"plain http to {parts.hostname} shows the token and the contexts to everybody on the way",
                hint="use https, or say gateway_insecure=True where the network is trusted",
            )
        object.__setattr__(self, "url", self.url.rstrip("/"))

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Gateway:
        """Return the gateway that settings, by their names in `rlm_kernel.config`, speak of.

        One that is named as a service for WebAssembly is asked for such a kernel.
        """
        url, kernel = settings.get("gateway_url"), settings.get("kernel_name")
        if not url and settings.get("wasm_service_url"):
            url, kernel = settings["wasm_service_url"], kernel or WASM_KERNEL
        return cls(
            url or "",
            settings.get("gateway_token") or "",
            kernel or "",
            allow_http=bool(settings.get("gateway_insecure")),
        )

    @classmethod
    def elsewhere(cls, url: str, settings: Mapping[str, Any], *, kernel_name: str = "") -> Gateway:
        """Return the server at ``url``, which came from somewhere else than the settings, with their token.

        Raises:
            ConfigError: the token is another server's.
        """
        named = settings.get("gateway_url") or settings.get("wasm_service_url")
        token = settings.get("gateway_token")
        if token and named and _origin(named) != _origin(url):
            raise ConfigError(
                f"the token that is set is for {_origin(named)}, and is not sent to {_origin(url)}",
                hint="set RLM_GATEWAY_URL and RLM_GATEWAY_TOKEN to that server's, or unset RLM_GATEWAY_URL",
            )
        return cls(url, token or "", kernel_name, allow_http=bool(settings.get("gateway_insecure")))

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers of every request."""
        return {"Authorization": f"token {self.token}"} if self.token else {}

    def api(self, *path: str) -> str:
        """Return the URL of a part of the REST API."""
        return "/".join([self.url, "api", *(quote(each, safe="") for each in path)])

    def __call__(self) -> JupyterSession:
        """Return a session, not started yet, with a kernel of this gateway."""
        from .session import GatewaySession  # noqa: PLC0415  on use
        from .transport import GatewayTransport  # noqa: PLC0415  on use

        return GatewaySession(GatewayTransport(self))

    async def check(self) -> None:
        """Make sure, once, that the gateway can be used; see `health_check`.

        Raises:
            ConfigError: it can't.
        """
        if self._known:
            return
        try:
            self._known.append(await self.health_check())
        except KernelStartError as error:
            raise ConfigError(str(error), hint=error.hint) from None

    @property
    def was_reached(self) -> bool:
        """Whether the gateway was there before, so that waiting for it makes sense."""
        return bool(self._known)

    async def health_check(self) -> Health:
        """Ask the gateway for its kernelspecs, which shows that it is there, and takes the token.

        Raises:
            KernelStartError: it is not there, or refuses.
            ConfigError: it has no kernelspec of the name asked for, or is a service that has no kernels.
        """
        from .rest import Rest  # noqa: PLC0415  on use

        try:
            async with Rest(self) as rest:
                health = await rest.health()
        except KernelStartError:
            from .predecessor import refuse_predecessor  # noqa: PLC0415  on use

            await refuse_predecessor(self)
            raise
        name = self.kernel_name or health.default
        if name not in health.kernelspecs:
            raise ConfigError(
                f"the gateway at {self.url} has no kernelspec named {name!r}",
                hint=f"it has: {', '.join(health.kernelspecs) or 'none'}; give one of them as kernel_name=",
            )
        return health


def _origin(url: str) -> str:
    """Return scheme, host and port of a URL, and nothing else that may be in it."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return f"{parts.scheme}://{host}:{port}"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
