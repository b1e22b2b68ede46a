"""Tenants on a Kernel Gateway."""

from __future__ import annotations

from kernel_gateway.auth.identity import GatewayIdentityProvider  # type: ignore[import-untyped]
from kernel_gateway.services.kernels.manager import (  # type: ignore[import-untyped]
    SeedingMappingKernelManager,
)

from .tenancy import TenantGate, TenantKernels

__all__ = ["TenantIdentityProvider", "TenantKernelManager"]


class TenantIdentityProvider(TenantGate, GatewayIdentityProvider):  # type: ignore[misc]
    """Knows tenants by their tokens."""


class TenantKernelManager(TenantKernels, SeedingMappingKernelManager):  # type: ignore[misc]
    """Knows whose a kernel is."""
