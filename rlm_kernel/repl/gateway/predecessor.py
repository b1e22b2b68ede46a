"""The WASM service of rlm-minimal, told from a gateway: it executes code by POST, and has no kernels."""

from __future__ import annotations

import json

import aiohttp

from ...errors import ConfigError
from .address import WASM_KERNEL, Gateway

__all__ = ["refuse_predecessor"]

SECONDS = 10.0
MAX_BYTES = 10_000


async def refuse_predecessor(gateway: Gateway) -> None:
    """Ask what has no Jupyter API whether it is such a service.

    Raises:
        ConfigError: it is.
    """
    try:
        async with (
            # Not with the token: it is for a gateway.
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(SECONDS)) as client,
            client.get(f"{gateway.url}/health", allow_redirects=False) as reply,
        ):
            status, said = reply.status, json.loads(await reply.content.read(MAX_BYTES))
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
        return
    if status == 200 and isinstance(said, dict) and "status" in said:
        raise ConfigError(
            f"what answers at {gateway.url} is a WASM service of rlm-minimal, which has no kernels",
            hint=f"start a gateway in its place: jupyter rlm gateway --kernel {WASM_KERNEL}",
        )
