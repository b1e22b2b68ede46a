"""The process that holds a GGUF model: llama.cpp's own HTTP server, from ``xllamacpp``, on 127.0.0.1.

Run as a script, never imported by the package: settings come as one JSON line on stdin, and one JSON line on
stdout says where it listens, or why it does not. It ends with its stdin, so it can't outlive its parent. The
key among the settings keeps others on this machine, kernels among them, from asking past the ledger.
"""

from __future__ import annotations

import json
import os
import sys
import time
from importlib import import_module
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen


def serve(settings: dict[str, Any]) -> str:
    """Load the model and return the server's address once it answers."""
    xllamacpp = import_module("xllamacpp")  # an extra, without types
    params = xllamacpp.CommonParams()
    params.model.path = settings["path"]
    params.model_alias = [settings["name"]]
    params.n_ctx = settings["n_ctx"]
    params.n_parallel = 1
    params.n_gpu_layers = settings["gpu_layers"]
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = settings["threads"]
    params.cache_ram_mib = 512
    params.warmup = False
    params.ui = False
    params.verbosity = 1
    params.port = 0
    params.hostnames = ["127.0.0.1"]
    params.api_keys = [settings["key"]]
    server = xllamacpp.Server(params)
    _SERVERS.append(server)
    address = str(server.listening_address)
    headers = {"Authorization": f"Bearer {settings['key']}"}
    question = Request(f"{address}/v1/models", headers=headers)  # noqa: S310  its own address
    while True:
        try:
            with urlopen(question, timeout=60) as reply:  # noqa: S310
                if reply.status == 200:
                    return address
        except URLError as error:
            # 503 while the model is being loaded.
            if getattr(error, "code", None) != 503:
                raise
        time.sleep(0.02)


_SERVERS: list[Any] = []


def main() -> None:
    """Serve until stdin ends."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print goes beside the log
    try:
        said = {"address": serve(json.loads(sys.stdin.readline()))}
    except Exception as error:  # noqa: BLE001  an edge: told to the parent
        said = {"error": f"{type(error).__name__}: {error}"}
    out.write(json.dumps(said) + "\n")
    out.flush()
    if "address" in said:
        sys.stdin.read()
    sys.stderr.flush()
    os._exit(0)  # the server's threads have nothing to save


if __name__ == "__main__":
    main()
