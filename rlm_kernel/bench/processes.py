"""The processes of the overhead benchmark: the endpoint, the contenders, the sampler, and cold programs.

All run with the user's interpreter and without the user's settings for models, so that defaults are what is
measured. Between measurements the machine settles: what one contender leaves to be done later, such as
starting a spare kernel, is not put on the next one's account.
"""

from __future__ import annotations

import http.client
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from itertools import pairwise
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from ..config import FIELDS
from ..errors import RLMError
from ..kernels.guard import descendants
from .cold import COLD
from .memory import Sample, cpu_seconds, pss
from .workloads import Workload

__all__ = ["Cold", "Done", "Processes", "Program", "Rest", "run_code"]

ANSWER_SECONDS = 900.0
SETTLE_SECONDS = 10.0
QUIET_SECONDS = 0.15
# A process at rest takes less of a core than this.
BUSY = 0.05
REST_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Done:
    """A workload as it was done: seconds it took in the contender, what the endpoint noted, by time.

    ``grown`` is by how many bytes the contender's own process grew at its peak, where the platform tells;
    ``starts`` are the seconds until each kernel was ready.
    """

    seconds: float
    notes: Sequence[dict[str, Any]]
    kernels: Sequence[str]
    grown: int | None
    starts: Sequence[float] = ()

    def gaps(self, model: str) -> list[float]:
        """Return the milliseconds from each reply to ``model``'s requests to the next request of it."""
        asked = [note for note in self.notes if note["model"] == model]
        return [1000 * (after["received"] - before["replied"]) for before, after in pairwise(asked)]


@dataclass(frozen=True, slots=True)
class Rest:
    """What a contender has beside itself when nothing is to be done: processes, their bytes; CPU in cores."""

    processes: int
    size: int
    cpu: float


@dataclass(frozen=True, slots=True)
class Cold:
    """Milliseconds until the endpoint had a program's first request: from its start, from its first line."""

    process: float
    call: float


class Program:
    """A module of this package as a process that answers lines with lines."""

    def __init__(self, module: str, *arguments: str) -> None:
        self._name = module
        self._process = subprocess.Popen(  # noqa: S603  this package's own program
            [sys.executable, "-m", f"rlm_kernel.bench.{module}", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=_environment(),
            text=True,
        )
        self.pid = self._process.pid

    def ask(self, line: str = "") -> str:
        """Write ``line``, if any, and return the line that comes back."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if line:
            self._process.stdin.write(f"{line}\n")
            self._process.stdin.flush()
        ready = select.select([self._process.stdout], [], [], ANSWER_SECONDS)[0]
        if not ready or not (answer := self._process.stdout.readline()):
            what = "said nothing" if not ready else f"ended with code {self._process.wait()}"
            raise RLMError(f"the benchmark's {self._name} process {what}", hint="its errors stand above")
        return answer

    def end(self) -> str:
        """Close the process's input, and return what it prints until it has ended."""
        try:
            return self._process.communicate(timeout=30)[0]
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.communicate()[0]


class Processes:
    """The endpoint, and a process for each contender, started when it is first needed."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._contenders: dict[str, Program] = {}
        self.base_url = ""

    def __enter__(self) -> Processes:
        endpoint = Program("endpoint")
        self._stack.callback(endpoint.end)
        self.base_url = endpoint.ask().strip()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def contender(self, name: str) -> Program:
        """Return the lasting process of a contender."""
        if name not in self._contenders:
            self._contenders[name] = Program("contender", name, self.base_url)
            self._stack.callback(self._contenders[name].end)
        return self._contenders[name]

    def do(self, name: str, workload: Workload) -> Done:
        """Have a contender do ``workload``, once the machine is quiet."""
        self.settle()
        return self._do(self.contender(name), name, workload)

    def do_sampled(self, name: str, workload: Workload) -> tuple[Done, list[Sample]]:
        """Have a new process of a contender do ``workload``; return also what it held meanwhile."""
        self.settle()
        contender = Program("contender", name, self.base_url)
        sampler = Program("memory", str(contender.pid))
        try:
            done = self._do(contender, name, workload)
        finally:
            samples = json.loads(sampler.end())
            contender.end()
        return done, samples

    def at_rest(self, name: str, workload: Workload) -> Rest:
        """Have a contender do ``workload``, and look at it when that is over."""
        self.do(name, workload)
        self.settle()
        pid = self.contender(name).pid
        others = descendants(pid)
        before = cpu_seconds([pid, *others])
        time.sleep(REST_SECONDS)
        spent = cpu_seconds([pid, *others]) - before
        return Rest(len(others), sum(pss(each)[0] for each in others), spent / REST_SECONDS)

    def _do(self, contender: Program, name: str, workload: Workload) -> Done:
        self._notes()
        done = json.loads(contender.ask(json.dumps(asdict(workload))))
        wrong = [text for text in done["answers"] if text != workload.expected]
        if wrong:
            raise RLMError(
                f"{name} answered {wrong[0][:200]!r} to {workload.root}, not {workload.expected!r}",
                hint="nothing is measured where the answer is wrong",
            )
        return Done(done["seconds"], self._notes(), done["kernels"], done["grown"], done["starts"])

    def cold(self, name: str) -> Cold:
        """Run a contender's program from nothing."""
        self.settle()
        self._notes()
        started = time.monotonic()
        begun = float(run_code(COLD[name], self.base_url))
        first = self._notes()[0]["received"]
        return Cold(1000 * (first - started), 1000 * (first - begun))

    def _notes(self) -> list[dict[str, Any]]:
        """Take the endpoint's notes, in the order in which the requests came."""
        connection = http.client.HTTPConnection(urlsplit(self.base_url).netloc, timeout=60)
        try:
            connection.request("GET", "/log")
            notes: list[dict[str, Any]] = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        return sorted(notes, key=lambda note: note["received"])

    def settle(self) -> None:
        """Wait until the contenders and all that they started have nothing to do."""
        pids = [each.pid for each in self._contenders.values()]
        _until_quiet(lambda: [*pids, *(each for pid in pids for each in descendants(pid))])


def run_code(code: str, *arguments: str) -> str:
    """Run a Python program given as text; return what it prints."""
    done = subprocess.run(  # noqa: S603  this package's own program
        [sys.executable, "-c", code, *arguments],
        env=_environment(),
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RLMError(
            f"a program of the benchmark ended with code {done.returncode}", hint="its errors stand above"
        )
    return done.stdout


def _until_quiet(processes: Callable[[], list[int]]) -> None:
    end = time.monotonic() + SETTLE_SECONDS
    with suppress(OSError):
        before = cpu_seconds(processes())
        while time.monotonic() < end:
            time.sleep(QUIET_SECONDS)
            now = cpu_seconds(processes())
            if now - before < BUSY * QUIET_SECONDS:
                return
            before = now


def _environment() -> dict[str, str]:
    """Return this process's environment without what would change how models are asked."""
    settings = {variable for field in FIELDS for variable in field.variables}
    return {
        name: value
        for name, value in os.environ.items()
        if name not in settings
        and not name.startswith(("OPENAI_", "RLM_", "LLM_"))
        and not name.lower().endswith("_proxy")
    }
