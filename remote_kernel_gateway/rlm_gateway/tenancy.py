"""What a tenant may ask of a server, and which kernels are whose. Both servers' classes are made of these.

Every request passes `TenantGate.get_user`, which knows the few that tenants have a use for; all others are
refused, whatever handlers a server or its extensions have. A kernel of another's does not exist: the answer
is the one for an id that nobody has. A kernel belongs to whom its start request came from; one that the
server started by itself is nobody's.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from jupyter_server.auth.identity import User
from jupyter_server.base.handlers import APIVersionHandler
from jupyter_server.kernelspecs.handlers import KernelSpecResourceHandler
from jupyter_server.services.kernels.handlers import KernelActionHandler, KernelHandler, MainKernelHandler
from jupyter_server.services.kernels.websocket import KernelWebsocketHandler
from jupyter_server.services.kernelspecs.handlers import KernelSpecHandler, MainKernelSpecHandler
from tornado import web
from traitlets import Integer, List, TraitError, Unicode, validate
from traitlets.config import LoggingConfigurable

from .audit import Audit
from .tokens import Tenant, Tenants

__all__ = ["TenantGate", "TenantKernels"]

_FOR_ALL = (APIVersionHandler, KernelSpecHandler, KernelSpecResourceHandler, MainKernelSpecHandler)
_FOR_ONE = (KernelActionHandler, KernelHandler, KernelWebsocketHandler)
_HEADER = re.compile(r"(?:token|bearer)\s+(\S+)\s*", re.IGNORECASE)

# Of the request under way. Tasks that outlive it inherit them: nothing but starting and listing reads them.
_starter: ContextVar[Tenant | None] = ContextVar("starter", default=None)
_reader: ContextVar[Tenant | None] = ContextVar("reader", default=None)
_start: ContextVar[Callable[..., Any] | None] = ContextVar("start", default=None)


class TenantGate(LoggingConfigurable):
    """What an identity provider is made of that knows tenants by their tokens, and what they may ask."""

    tenants_file = Unicode("", config=True, help="The file of tenants, see rlm_gateway.")
    _tenants: Tenants | None = None

    @validate("tenants_file")
    def _usable(self, proposal: Any) -> Any:
        try:
            self._tenants = Tenants(proposal["value"])
        except ValueError as error:
            raise TraitError(str(error)) from None
        return proposal["value"]

    @property
    def auth_enabled(self) -> bool:
        """Whether anybody is asked who they are: always, also without tenants."""
        return True

    @property
    def login_available(self) -> bool:
        """Whether there is a page to log in: programs send their token with each request."""
        return False

    def get_user(self, handler: Any) -> User | None:
        """Return who asks, if they may ask that; a cookie, or a token in a URL, is nobody's.

        Raises:
            web.HTTPError: a tenant asks for what it may not have.
        """
        _starter.set(None)
        _reader.set(None)
        given = _HEADER.fullmatch(handler.request.headers.get("Authorization", ""))
        tenant = self._find(given.group(1)) if given else None
        if tenant is None:
            return None
        kernels = handler.settings["kernel_manager"]
        if isinstance(handler, _FOR_ONE):
            id_ = handler.path_kwargs.get("kernel_id", "")
            if not isinstance(kernels, TenantKernels) or kernels.owner_of(id_) != tenant.name:
                raise web.HTTPError(404, f"Kernel does not exist: {id_}")
        elif isinstance(handler, MainKernelHandler) and isinstance(kernels, TenantKernels):
            (_reader if handler.request.method in ("GET", "HEAD") else _starter).set(tenant)
        elif not isinstance(handler, _FOR_ALL):
            raise web.HTTPError(403, "not for tenants")
        handler._token_authenticated = True
        return User(username=tenant.name)

    def _find(self, token: str) -> Tenant | None:
        try:
            return self._tenants.find(token) if self._tenants is not None else None
        except ValueError as error:
            self.log.error("nobody is let in: %s", error)  # noqa: TRY400  it says all there is
            return None


class TenantKernels(LoggingConfigurable):
    """What a manager of kernels is made of that knows whose they are, and how many each may have."""

    kernels_per_tenant = Integer(8, config=True, help="Kernels a tenant may have at once.")
    kernel_names = List(
        Unicode(),
        ["rlm-pyodide", "rlm-sandbox"],
        config=True,
        help="Kernelspecs that tenants may start. A native one can read the others' connection files.",
    )

    def __init__(self, **kwargs: Any) -> None:
        self._owners: dict[str, str] = {}
        self._under_way: set[str] = set()
        super().__init__(**kwargs)

    def owner_of(self, kernel_id: str) -> str | None:
        """Return the name of the tenant whose kernel this is; None if it is nobody's."""
        return self._owners.get(kernel_id) if kernel_id in self else None  # type: ignore[operator]

    @property
    def start_kernel(self) -> Callable[..., Any]:
        """Start a kernel, for the tenant who asks."""
        return _start.get() or self._start_for_tenant

    @start_kernel.setter
    def start_kernel(self, replaced: Callable[..., Any]) -> None:
        # A Kernel Gateway puts the variables of a request in here while it starts a kernel, for all requests
        # at that time: others' kernels would be given them.
        _start.set(replaced)

    async def _start_for_tenant(self, *args: Any, **kwargs: Any) -> str:
        start: Callable[..., Any] = super().start_kernel  # type: ignore[misc]
        tenant = _starter.get()
        if tenant is None:
            return await start(*args, **kwargs)  # type: ignore[no-any-return]
        name = kwargs.get("kernel_name") or self.default_kernel_name  # type: ignore[attr-defined]
        if name not in self.kernel_names:
            raise web.HTTPError(403, f"tenants may start {', '.join(self.kernel_names)} here, not {name}")
        if kwargs.get("kernel_id") is not None:
            raise web.HTTPError(403, "a kernel's id is the server's to choose")
        self._make_room(tenant)
        id_ = kwargs["kernel_id"] = str(uuid.uuid4())
        self._owners[id_] = tenant.name
        self._under_way.add(id_)
        try:
            await start(*args, **kwargs)
        finally:
            self._under_way.discard(id_)
        Audit.instance(parent=self).note("start", user=tenant.name, kernel=id_, kernel_name=name)
        return id_

    def _make_room(self, tenant: Tenant) -> None:
        gone = [id_ for id_ in self._owners if id_ not in self and id_ not in self._under_way]  # type: ignore[operator]
        for id_ in gone:
            del self._owners[id_]
        most = self.kernels_per_tenant if tenant.kernels is None else tenant.kernels
        if sum(name == tenant.name for name in self._owners.values()) >= most:
            raise web.HTTPError(403, f"{tenant.name} has {most} kernels, and may have no more at once")

    def list_kernels(self) -> list[dict[str, Any]]:
        """Return the models of the kernels of who asks for them; of all, to the server itself."""
        models: list[dict[str, Any]] = super().list_kernels()  # type: ignore[misc]
        tenant = _reader.get()
        if tenant is None:
            return models
        return [model for model in models if self._owners.get(model["id"]) == tenant.name]
