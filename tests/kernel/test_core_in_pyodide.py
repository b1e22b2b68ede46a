"""The package's core runs inside Pyodide: a scripted run over a REPL in the same process, in the sandbox."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from wasm import needs_deno, open_sandbox

import rlm_kernel

pytestmark = needs_deno

REPL = '''
import ast, contextlib, inspect, io, traceback
from rlm_kernel.outputs import Output
from rlm_kernel.repl.base import CellResult, FinalAnswer, KernelInfo, LLMQuery


class InProcess:
    """A `KernelSession` that runs cells where it is; calls are awaited."""

    alive = True

    async def start(self, contexts, tools=()):
        self.namespace = {each.name: each.value for each in contexts}
        return KernelInfo("here", "here", "Pyodide")

    async def load(self, contexts, renamed, *, fresh=False):
        self.namespace.update({each.name: each.value for each in contexts})

    async def settle(self):
        return True

    async def execute(self, code, *, timeout, on_call, on_output=None):
        final = []

        async def allm_query_batched(prompts):
            return await on_call(LLMQuery(tuple(prompts), batched=True))

        def FINAL(value):
            final.append(FinalAnswer(str(value), value, "FINAL"))

        self.namespace.update(allm_query_batched=allm_query_batched, FINAL=FINAL)
        out = io.StringIO()
        status = "ok"
        with contextlib.redirect_stdout(out):
            try:
                compiled = compile(code, "<cell>", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
                value = eval(compiled, self.namespace)
                if inspect.isawaitable(value):
                    await value
            except Exception:
                status = "error"
                out.write(traceback.format_exc())
        return CellResult(status, (Output("stdout", out.getvalue()),), final=final[0] if final else None)

    async def interrupt(self):
        pass

    async def close(self):
        pass
'''

RUN = (
    REPL
    + '''
from rlm_kernel import RLM
from rlm_kernel.models.scripted import ScriptedModel

first = """```repl
parts = context.split(";")
found = await allm_query_batched([f"How many? {part}" for part in parts])
print(found)
```"""
second = """```repl
FINAL(sum(map(int, found)))
```"""
root = ScriptedModel([first, second], name="root")
sub = ScriptedModel(lambda request: str(request.messages[-1]["content"].count("x")), name="sub")
rlm = RLM(model=root, sub_model=sub, repl=InProcess)
answered = await rlm.acompletion("How many x are there?", "xx;xxx;;x")
await rlm.aclose()
print(answered.status, answered.text, answered.total_calls, answered.iterations)
print("['2', '3', '0', '1']" in str(root.requests[1].messages))
'''
)


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    """The package as a wheel, its Python files alone."""
    path = tmp_path_factory.mktemp("core") / "rlm_kernel-0-py3-none-any.whl"
    package = Path(rlm_kernel.__file__).parent
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(package.rglob("*.py")):
            archive.write(file, file.relative_to(package.parent))
    return str(path)


async def test_a_scripted_run_is_completed_there(wheels):
    async with open_sandbox(env={"RLM_PYODIDE_WHEELS": wheels}) as repl:
        result = await repl.run(RUN)
        text = "".join(each.text for each in result.outputs)
        assert result.status == "ok", text
        assert "answered 6 6 2" in text, text
        assert text.splitlines()[-1].endswith("True")


async def test_every_pure_module_can_be_imported_there(wheels):
    pure = "estimate errors usage messages outputs evidence events config models.base ledger passages files"
    pure += " context dialect prompts feedback answer engine runs.run"
    pure += " page rlm live session models.openai models.fetched repl.lite.session"
    pure = pure.split()
    lines = [f"import rlm_kernel.{name}" for name in pure]
    code = "\n".join([*lines, str(len(pure))])
    async with open_sandbox(env={"RLM_PYODIDE_WHEELS": wheels}) as repl:
        assert await repl.value(code) == str(len(pure))


async def test_other_repls_are_refused_there_in_words(wheels):
    code = """
from rlm_kernel import RLM
from rlm_kernel.errors import ConfigError
from rlm_kernel.models.scripted import ScriptedModel

for name in ("local", "shell", "gateway", "attach:kernel-1.json"):
    try:
        RLM(model=ScriptedModel([]), repl=name)
    except ConfigError as error:
        print(error, "|", error.hint)
"""
    async with open_sandbox(env={"RLM_PYODIDE_WHEELS": wheels}) as repl:
        result = await repl.run(code)
    told = "".join(each.text for each in result.outputs).splitlines()
    hint = "leave it away: it is 'lite'"
    names = ("local", "shell", "gateway", "attach:kernel-1.json")
    assert told == [f"repl={name!r} does not work in a web page | {hint}" for name in names]
