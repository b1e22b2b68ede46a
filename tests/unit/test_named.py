"""Whose a token is, and whose a named session: what may not go to another server, or to two processes."""

from __future__ import annotations

import os
import sys

import pytest

from rlm_kernel.errors import ConfigError
from rlm_kernel.repl.attach.target import target_of
from rlm_kernel.repl.gateway.address import Gateway
from rlm_kernel.repl.gateway.named import Named

TOKEN = "canary-0123456789-gateway"


def test_a_token_goes_to_no_server_but_its_own():
    settings = {"gateway_token": TOKEN, "gateway_url": "https://host:443/base"}
    assert Gateway.elsewhere("https://HOST/other", settings).token == TOKEN
    assert Gateway.elsewhere("https://other", {"gateway_token": TOKEN}).token == TOKEN
    assert Gateway.elsewhere("https://other", {"gateway_url": "https://host"}).token == ""
    for url in ("https://other", "https://host:8443", "http://127.0.0.1:443"):
        for name in ("gateway_url", "wasm_service_url"):
            with pytest.raises(ConfigError, match="the token that is set is for https://host:443") as caught:
                Gateway.elsewhere(url, {"gateway_token": TOKEN, name: "https://host/?x"})
            assert TOKEN not in f"{caught.value} {caught.value.hint}"


def test_a_kernel_of_another_server_is_not_asked_with_the_gateways_token():
    settings = {"gateway_token": TOKEN, "gateway_url": "https://host"}
    assert target_of("https://host/api/kernels/1", settings).server.token == TOKEN
    with pytest.raises(ConfigError, match="not sent to https://other:443"):
        target_of("https://other/api/kernels/1", settings)


# Named sessions ---------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="Windows deletes no file that is open")
def test_a_lock_that_was_deleted_with_its_session_is_nobodys(tmp_path, monkeypatch):
    """Who opened the file just before it was deleted would share the session with who comes next."""
    gateway = Gateway("http://127.0.0.1:1")
    first = Named(tmp_path, "research", gateway)
    real = os.fdopen

    def late(*args, **options):
        # Between opening the file, and locking it.
        monkeypatch.setattr(os, "fdopen", real)
        first.forget()
        return real(*args, **options)

    monkeypatch.setattr(os, "fdopen", late)
    second = Named(tmp_path, "research", gateway)
    with pytest.raises(ConfigError, match=f"in use by process {os.getpid()}"):
        Named(tmp_path, "research", gateway)
    second.release()
    Named(tmp_path, "research", gateway).release()
