"""What `KernelInterpreter` must do under dspy: run as a program by a Python that has it.

It prints one JSON object, check -> traceback or an empty text. Here it is only imported, for the names.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import traceback

from rlm_kernel.compat.dspy import KernelInterpreter

CHECKS = []


def check(function):
    CHECKS.append(function.__name__)
    return function


def raises(kind, function, *arguments):
    try:
        function(*arguments)
    except kind as error:
        caught = error
    else:
        raise AssertionError(f"{kind.__name__} was not raised")
    assert type(caught) is kind, caught
    return str(caught)


def model(*codes):
    from dspy.utils import DummyLM

    return DummyLM([{"reasoning": "so", "code": f"```python\n{code}\n```"} for code in codes])


def plain(text):
    from dspy.utils import DummyLM

    return DummyLM([{"answer": text}] * 20)


@check
def rlm_runs_in_our_kernels_with_one_argument():
    import dspy

    codes = (
        "import os, sys\nprint(len(context), 'ipykernel' in sys.modules, os.environ.get('OPENAI_API_KEY'))",
        "answer = sum(len(each) for each in llm_query_batched([context[:5], context[5:]]))\nanswer",
        "SUBMIT(answer=answer > 0)",
    )
    rlm = dspy.RLM("context, query -> answer: bool", interpreter_factory=KernelInterpreter)
    with dspy.context(lm=model(*codes)):
        rlm.sub_lm = plain("sub")
        result = rlm(context="x" * 100, query="how long?")
    assert result.answer is True
    outputs = [each["output"] for each in result.trajectory]
    assert outputs[0] == "100 True None", outputs[0]
    assert int(outputs[1]) > 0


@check
def errors_are_shown_and_variables_kept():
    import dspy

    codes = ("kept = [1]\nprint('before')\n1/0", "this is no python", "SUBMIT(kept + [query])")
    rlm = dspy.RLM("query -> answer: list", interpreter_factory=KernelInterpreter)
    with dspy.context(lm=model(*codes)):
        result = rlm(query="q")
    assert result.answer == [1, "q"]
    first, second, _ = (each["output"] for each in result.trajectory)
    assert "ZeroDivisionError: division by zero" in first
    assert "before" in first
    assert second.startswith("[Error] invalid syntax"), second


@check
def tools_and_sub_agents_are_called_on_the_host():
    import dspy

    def shout(text: str) -> str:
        """Return it in capitals."""
        return f"{text.upper()} {os.getpid()}"

    async def later(n: int) -> int:
        await asyncio.sleep(0)
        return n + 1

    codes = (
        "import dspy\nask = dspy.Predict('question -> answer')",
        "print(ask(question='q').answer, shout(text='a'), later(n=1))",
        "SUBMIT('done')",
    )
    rlm = dspy.RLM(
        "query -> answer", interpreter_factory=KernelInterpreter, tools=[shout, later], sub_lm=plain("sub")
    )
    with dspy.context(lm=model(*codes)):
        result = rlm(query="q")
    assert result.trajectory[1]["output"] == f"sub A {os.getpid()} 2"


@check
def it_can_be_configured_and_awaited():
    import dspy

    rlm = dspy.RLM("query -> answer")
    with dspy.context(lm=model("SUBMIT(query * 2)"), interpreter_factory=KernelInterpreter):
        assert asyncio.run(rlm.acall(query="ab")).answer == "abab"
        assert dspy.RLM("query -> answer").generate_action.signature.instructions.count("Jupyter kernel") == 1


@check
def values_with_their_own_way_in_arrive():
    import dspy
    from dspy.primitives.sandbox_serializable import SandboxSerializable

    class Numbers(SandboxSerializable):
        def sandbox_setup(self):
            return "import json"

        def to_sandbox(self):
            return b"[1, 2, 3]"

        def sandbox_assignment(self, var_name, data_expr):
            return f"{var_name} = json.loads({data_expr})"

        def rlm_preview(self, max_chars=500):
            return "three numbers"

    class Sum(dspy.Signature):
        numbers: Numbers = dspy.InputField()
        total: int = dspy.OutputField()

    with dspy.context(lm=model("SUBMIT(sum(numbers))")):
        assert dspy.RLM(Sum, interpreter_factory=KernelInterpreter)(numbers=Numbers()).total == 6


@check
def the_protocol_holds():
    from dspy.primitives.code_interpreter import (
        CodeExecutionError,
        CodeInterpreter,
        CodeInterpreterError,
        FinalOutput,
    )

    def unsendable():
        return object()

    def leaving():
        raise SystemExit(3)

    with KernelInterpreter({"unsendable": unsendable, "leaving": leaving}, cell_timeout=1.0) as it:
        assert isinstance(it, CodeInterpreter)
        it.start()
        assert it.execute("x = 1") is None
        assert it("print('a'); x", {"big": "y" * 300_000, "_rows": [{"a": 1}]}) == "a\n1"
        assert it.execute("len(big), _rows, x") == "(300000, [{'a': 1}], 1)"
        assert raises(SyntaxError, it.execute, "1 +")
        assert "NameError" in raises(CodeExecutionError, it.execute, "nothing")
        assert "TypeError" in raises(CodeExecutionError, it.execute, "unsendable()")
        assert "SystemExit: 3" in raises(CodeExecutionError, it.execute, "leaving()")
        assert "interrupted after 1 seconds" in raises(CodeExecutionError, it.execute, "while True: pass")
        assert it.execute("x") == "1"
        assert it.execute("SUBMIT({'n': x})") == FinalOutput({"output": {"n": 1}})
        assert it.execute(
            "try:\n    SUBMIT(7)\nexcept Exception:\n    pass\nprint('not reached')"
        ) == FinalOutput({"output": 7})
        assert "SUBMIT takes output" in raises(CodeExecutionError, it.execute, "SUBMIT(1, 2)")
        it.output_fields = [{"name": "a", "type": "int"}, {"name": "b"}]
        assert it.execute("SUBMIT(b=2, a=1)") == FinalOutput({"a": 1, "b": 2})
        for wrong in ({"SUBMIT": 1}, {"no name": 1}, {"unsendable": 1}, {"rlm_host": 1}):
            assert "can't have these names" in raises(CodeInterpreterError, it.execute, "1", wrong)
        assert "can't travel" in raises(CodeInterpreterError, it.execute, "1", {"f": object()})
        assert it.execute("y", {"y": 2}) == "2"
    assert "shut down" in raises(CodeInterpreterError, it.execute, "1")


@check
def a_kernel_that_ends_ends_the_session():
    from dspy.primitives.code_interpreter import CodeInterpreterError

    it = KernelInterpreter()
    assert "ended" in raises(CodeInterpreterError, it.execute, "import os; os._exit(1)")
    assert "ended" in raises(CodeInterpreterError, it.execute, "1")
    assert "ended" in raises(CodeInterpreterError, it.start)
    it.shutdown()


def main():
    found = {}
    for name in CHECKS:
        try:
            globals()[name]()
            found[name] = ""
        except BaseException:  # noqa: BLE001  it is reported
            found[name] = traceback.format_exc()
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
