"""``rlm.remote`` of rlm-minimal: code runs in WebAssembly on another machine; here, in a gateway's kernel.

What was a service that executes code by POST is a Kernel Gateway with the kernelspec `rlm-pyodide`. The
token, where it has one, is ``RLM_GATEWAY_TOKEN``. Unlike there, a factory given to `RLM_REPL` is used by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ... import background, config
from ...errors import ConfigError, KernelStartError
from ...repl.gateway.address import WASM_KERNEL, Gateway
from .repl import REPLEnv
from .unavailable import SIDECAR, refusing

if TYPE_CHECKING:
    from ...repl.session import JupyterSession

__all__ = ["RemoteExecutionConfig", "RemoteREPLEnv", "RemoteREPLFactory"]

__getattr__ = refusing(__name__, SIDECAR)

TIMEOUT = 35


@dataclass
class RemoteExecutionConfig:
    """Where code runs, and how long a cell may take, in seconds.

    ``max_retries`` and ``retry_backoff`` have nothing to do: a connection that breaks is made again, and
    nothing is executed twice.

    Raises:
        ConfigError: ``verify_ssl`` is false.
    """

    wasm_service_url: str
    timeout: float = TIMEOUT
    max_retries: int = 3
    retry_backoff: float = 0.5
    verify_ssl: bool = True

    def __post_init__(self) -> None:
        if not self.verify_ssl:
            raise ConfigError(
                "verify_ssl=False would show the token and the contexts to everybody on the way",
                hint="SSL_CERT_FILE names the file with the authorities to trust",
            )


def _gateway(url: str | None) -> Gateway:
    # Named as this service, it is one for WebAssembly. The token is for RLM_GATEWAY_URL's, where that is set.
    settings = {name: setting.value for name, setting in config.resolve({"wasm_service_url": url}).items()}
    if not settings["wasm_service_url"]:
        raise ConfigError(
            "no gateway is named to run code in",
            hint="give wasm_service_url=, or set WASM_SERVICE_URL; `jupyter rlm gateway` starts one",
        )
    return Gateway.elsewhere(
        settings["wasm_service_url"],
        {**settings, "wasm_service_url": None},
        kernel_name=settings["kernel_name"] or WASM_KERNEL,
    )


class RemoteREPLFactory:
    """Makes sessions on a gateway, for ``repl_factory=`` and ``repl=``, and environments to run code in.

    Without a URL, ``WASM_SERVICE_URL`` has it.

    Raises:
        ConfigError: no URL, or plain http to another machine without ``RLM_GATEWAY_INSECURE=1``.
    """

    backend = "gateway"

    def __init__(self, wasm_service_url: str | None = None) -> None:
        self._gateway = _gateway(wasm_service_url)
        self.wasm_service_url = self._gateway.url

    def __call__(self) -> JupyterSession:
        """Return a session, not started yet, with a kernel of the gateway."""
        return self._gateway()

    async def check(self) -> None:
        """Make sure, once, that the gateway can be used.

        Raises:
            ConfigError: it can't.
        """
        await self._gateway.check()

    def create(self, max_depth: int = 1, current_depth: int = 0, **kwargs: Any) -> RemoteREPLEnv:
        """Return an environment there; further arguments are `RemoteREPLEnv`'s."""
        return RemoteREPLEnv(
            self.wasm_service_url, max_depth=max_depth, current_depth=current_depth, **kwargs
        )

    def health_check(self) -> bool:
        """Return whether the gateway answers and has the kernel; False if nobody is there.

        Raises:
            ConfigError: what is there can't be used: it refuses the token, has no such kernel, or is a
                service of rlm-minimal, which has none at all.
        """
        from ...repl.gateway.rest import GatewayUnreachableError  # noqa: PLC0415  heavy

        try:
            background.run(self._gateway.health_check())
        except GatewayUnreachableError:
            return False
        except KernelStartError as error:
            raise ConfigError(str(error), hint=error.hint) from None
        return True

    def readiness_check(self) -> bool:
        """Return what `health_check` does: a gateway that answers is ready."""
        return self.health_check()


class RemoteREPLEnv(REPLEnv):
    """A `REPLEnv` whose code runs in a gateway's kernel. A cell may take ``config.timeout`` seconds.

    Raises:
        ConfigError: see `RemoteREPLFactory`.
    """

    def __init__(  # noqa: PLR0917  the original's
        self,
        wasm_service_url: str | None = None,
        config: RemoteExecutionConfig | None = None,
        recursive_models: Sequence[str] | None = None,
        recursive_base_urls: Sequence[str] | None = None,
        api_key: str | None = None,
        context_json: Any = None,
        context_str: str | None = None,
        setup_code: str | None = None,
        max_depth: int = 1,
        current_depth: int = 0,
    ) -> None:
        factory = RemoteREPLFactory(config.wasm_service_url if config else wasm_service_url)
        self.config = config or RemoteExecutionConfig(factory.wasm_service_url)
        background.run(factory.check())
        super().__init__(
            recursive_models,
            recursive_base_urls,
            api_key,
            context_json,
            context_str,
            setup_code,
            max_depth,
            current_depth,
            cell_timeout=self.config.timeout,
            session=factory,
        )
