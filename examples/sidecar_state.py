"""State in the sidecar: variables, contexts and answers outlive the process that asks.

A gateway beside the orchestrator has the kernels. This script starts one on this machine, and two
orchestrators, one after the other: the second goes on where the first has ended, with the same kernel and
without the text. In a deployment, the gateway is the other container of the pod.

Needs `pip install jupyter-kernel-gateway`. The model and its endpoint come from the environment: RLM_MODEL,
OPENAI_API_KEY, OPENAI_BASE_URL.
"""

import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time

FIRST = """\
from rlm_kernel import RLM

LOG = "".join(f"{n % 24:02}:00 pump {n % 3} {'failed' if n % 7 == 0 else 'ran'}\\n" for n in range(1000))
with RLM(repl="gateway") as rlm, rlm.session(LOG, name="pumps") as session:
    print("first: ", session.ask("How often did a pump fail?"))
"""
SECOND = """\
from rlm_kernel import RLM

with RLM(repl="gateway") as rlm, rlm.session(name="pumps") as session:
    print("second:", session.ask("Which pump failed most often?"))
    for entry in session.history:
        print(f"{entry['question']} {entry['answer']}")
"""


def wait_until_it_listens(port: int) -> None:
    for _ in range(600):
        with socket.socket() as tried:
            if tried.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise TimeoutError("the gateway does not listen")


with socket.socket() as found:
    found.bind(("127.0.0.1", 0))
    port = found.getsockname()[1]
url, token = f"http://127.0.0.1:{port}", secrets.token_hex()

with tempfile.TemporaryDirectory() as folder:
    gateway = subprocess.Popen(
        [sys.executable, "-m", "kernel_gateway", "--ip=127.0.0.1", f"--port={port}"],
        env={**os.environ, "KG_AUTH_TOKEN": token},
        stderr=subprocess.DEVNULL,
    )
    # RLM_STATE_DIR is a volume in a deployment: it tells the next orchestrator which kernel it was.
    settings = {"RLM_GATEWAY_URL": url, "RLM_GATEWAY_TOKEN": token, "RLM_STATE_DIR": folder}
    try:
        wait_until_it_listens(port)
        for orchestrator in (FIRST, SECOND):
            subprocess.run([sys.executable, "-c", orchestrator], env={**os.environ, **settings}, check=True)
    finally:
        gateway.terminate()
        gateway.wait()
