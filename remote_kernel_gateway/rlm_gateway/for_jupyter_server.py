"""Tenants on a Jupyter Server."""

from __future__ import annotations

from jupyter_server.auth.identity import IdentityProvider
from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager
from traitlets import default

from .tenancy import TenantGate, TenantKernels

__all__ = ["TenantIdentityProvider", "TenantKernelManager"]


class TenantIdentityProvider(TenantGate, IdentityProvider):
    """Knows tenants by their tokens."""

    @default("token")
    def _token_default(self) -> str:
        return ""


class TenantKernelManager(TenantKernels, AsyncMappingKernelManager):
    """Knows whose a kernel is."""
