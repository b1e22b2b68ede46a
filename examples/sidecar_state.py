"""State in the sidecar: variables, contexts and answers outlive the process that asks.

A gateway beside the orchestrator has the kernels. This script starts one on this machine, and two
orchestrators, one after the other: the second goes on where the first has ended, with the same kernel and
without the text. In a deployment, the gateway is the other container of the pod.

Needs `pip install 'rlm-kernel[gateway]'`. The model and its endpoint come from the environment: RLM_MODEL,
OPENAI_API_KEY, OPENAI_BASE_URL. The gateway has neither: it is given an environment of its own.
"""

import os
import subprocess
import sys
import tempfile

from rlm_kernel.loopback import LoopbackGateway

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

with (
    tempfile.TemporaryDirectory() as folder,
    open(os.devnull, "wb") as log,
    LoopbackGateway(["python3"], log=log) as gateway,
):
    # RLM_STATE_DIR is a volume in a deployment: it tells the next orchestrator which kernel it was.
    settings = {
        "RLM_GATEWAY_URL": gateway.url,
        "RLM_GATEWAY_TOKEN": gateway.token,
        "RLM_STATE_DIR": folder,
    }
    for orchestrator in (FIRST, SECOND):
        subprocess.run([sys.executable, "-c", orchestrator], env={**os.environ, **settings}, check=True)
