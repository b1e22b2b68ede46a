"""Which model a backend and its arguments stand for: each provider by its OpenAI-compatible endpoint.

A provider's key comes from ``api_key``, else from the provider's own variable; the key of one is never sent
to another.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ....models.base import ModelOptions
from ....models.openai import OpenAIModel
from ..utils.exceptions import UnsupportedArgumentError
from .base_lm import DEFAULT_TIMEOUT

__all__ = ["BACKENDS", "model_of", "options_of"]


@dataclass(frozen=True, slots=True)
class _Endpoint:
    url: str
    variable: str
    header: str = ""


_ENDPOINTS = {
    "openrouter": _Endpoint("https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
    "vercel": _Endpoint("https://ai-gateway.vercel.sh/v1", "AI_GATEWAY_API_KEY"),
    "portkey": _Endpoint("https://api.portkey.ai/v1", "PORTKEY_API_KEY", header="x-portkey-api-key"),
    "anthropic": _Endpoint("https://api.anthropic.com/v1", "ANTHROPIC_API_KEY"),
    "gemini": _Endpoint("https://generativelanguage.googleapis.com/v1beta/openai", "GEMINI_API_KEY"),
}
_PRIME = _Endpoint("https://api.pinference.ai/api/v1", "PRIME_API_KEY")
BACKENDS = ("openai", "vllm", "azure_openai", *_ENDPOINTS)
"""The backends of `rlms`, all of which work."""

_KNOWN = frozenset(
    (
        *("model_name", "api_key", "base_url", "timeout", "max_retries"),
        *("default_headers", "sampling_args", "prices"),
    )
)
_AZURE = frozenset(("azure_endpoint", "api_version", "azure_deployment"))


def model_of(backend: str, kwargs: Mapping[str, Any] | None) -> OpenAIModel:
    """Return the model that ``backend`` and ``backend_kwargs`` of `rlms` stand for.

    Beside its arguments, ``prices`` are taken: USD per million tokens by name, as by `rlm_kernel.RLM`.

    Raises:
        UnsupportedArgumentError: an unknown backend, an argument without a meaning here, no name or no key.
    """
    given = dict(kwargs or {})
    if backend not in BACKENDS:
        raise UnsupportedArgumentError(f"no backend {backend!r}", hint=f"there is {', '.join(BACKENDS)}")
    _check(backend, given)
    sampling = dict(given.get("sampling_args") or {})
    if backend == "anthropic":
        sampling = {"max_tokens": given.get("max_tokens", 32768), **sampling}
    shared = {
        "options": options_of(sampling),
        "prices": given.get("prices"),
        "timeout": given.get("timeout", DEFAULT_TIMEOUT),
        "max_retries": given.get("max_retries", 5),
    }
    name = given.get("model_name") or ("gemini-2.5-flash" if backend == "gemini" else None)
    if not name:
        raise UnsupportedArgumentError(
            "the backend has no model", hint='give backend_kwargs={"model_name": ...}'
        )
    if backend == "azure_openai":
        return OpenAIModel(name, client=_azure(given), **shared)
    url, headers = given.get("base_url"), dict(given.get("default_headers") or {})
    endpoint = _ENDPOINTS.get(backend) or _by_url(url)
    key = given.get("api_key")
    if endpoint is None:
        return OpenAIModel(name, base_url=url, api_key=key, default_headers=headers, **shared)
    key = key or os.environ.get(endpoint.variable)
    if not key:
        raise UnsupportedArgumentError(
            f"no key for the backend {backend!r}", hint=f"set {endpoint.variable}, or give api_key"
        )
    if endpoint.header:
        headers[endpoint.header] = key
    return OpenAIModel(name, base_url=url or endpoint.url, api_key=key, default_headers=headers, **shared)


def _check(backend: str, given: Mapping[str, Any]) -> None:
    known = _KNOWN | (_AZURE if backend == "azure_openai" else set())
    known |= {"max_tokens"} if backend == "anthropic" else set()
    unknown = sorted(set(given) - known)
    if unknown:
        raise UnsupportedArgumentError(
            f"backend_kwargs of {backend!r} can't hold {', '.join(unknown)} here",
            hint=f"there is {', '.join(sorted(known))}; use rlm_kernel.OpenAIModel for a client of your own",
        )
    if backend == "vllm" and not given.get("base_url"):
        raise UnsupportedArgumentError("the backend 'vllm' has no address", hint="give base_url")


def _by_url(url: Any) -> _Endpoint | None:
    """Return the provider whose address is given to the backend ``openai``, as `rlms` takes it."""
    if not isinstance(url, str):
        return None
    known = (*_ENDPOINTS.values(), _PRIME)
    return next((each for each in known if url.rstrip("/") == each.url), None)


def _azure(given: Mapping[str, Any]) -> Any:
    import openai  # noqa: PLC0415  on use

    def setting(name: str, variable: str, default: str | None = None) -> Any:
        return given.get(name) or os.environ.get(variable, default)

    address = setting("azure_endpoint", "AZURE_OPENAI_ENDPOINT")
    key = setting("api_key", "AZURE_OPENAI_API_KEY")
    if not address or not key:
        raise UnsupportedArgumentError(
            "the backend 'azure_openai' has no address, or no key",
            hint="set AZURE_OPENAI_ENDPOINT and AZURE_OPENAI_API_KEY, or give azure_endpoint and api_key",
        )
    return openai.AsyncAzureOpenAI(
        api_key=key,
        azure_endpoint=address,
        api_version=setting("api_version", "AZURE_OPENAI_API_VERSION", "2024-02-01"),
        azure_deployment=setting("azure_deployment", "AZURE_OPENAI_DEPLOYMENT"),
        default_headers=given.get("default_headers"),
    )


def options_of(sampling: Mapping[str, Any]) -> ModelOptions:
    """Return sampling arguments as options; what options have no field for goes into the body as it is."""
    rest = {name: value for name, value in sampling.items() if value is not None}
    extra = dict(rest.pop("extra_body", None) or {})
    tokens = [rest.pop(name, None) for name in ("max_completion_tokens", "max_tokens")]
    return ModelOptions(
        temperature=rest.pop("temperature", None),
        max_output_tokens=next((each for each in tokens if each is not None), None),
        reasoning_effort=rest.pop("reasoning_effort", None),
        extra_body={**rest, **extra},
    )
