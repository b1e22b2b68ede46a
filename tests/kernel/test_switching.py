"""docs/switching.md: each row of its tables is run, or says why there is nothing to run.

Rows run in one process of their own, so that what they leave open ends with it. A row whose left cell names
a variable must give the variable's value, or work only where it is set; one "in the REPL" is a cell of a
session's second question; a name that is said to be none must not be importable.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from compat_endpoint import KEY, served

from rlm_kernel.compat import rlm_minimal, rlms
from rlm_kernel.config import FIELDS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "switching.md").read_text()
PRELUDE = re.search(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)[1]
VALUES = {
    "LLM_API_KEY": "sk-canary-row-0123456789",
    "LLM_BASE_URL": "http://127.0.0.1:9/v1",
    "LLM_RECURSIVE_BASE_URL": "http://127.0.0.1:9/v1",
    "MAX_DEPTH": "3",
    "MAX_ITERATIONS": "7",
    "WASM_SERVICE_URL": "http://127.0.0.1:9",
    "AZURE_OPENAI_ENDPOINT": "http://127.0.0.1:9",
    "AZURE_OPENAI_API_VERSION": "2024-02-01",
}


def rows():
    for part in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]:
        package = part.partition("\n")[0]
        for line in part.splitlines():
            cells = [each.strip() for each in line.strip("|").split(" |")]
            if line.startswith("|") and cells[0] != "there" and not line.startswith("|---"):
                assert len(cells) == 3, line
                yield package, *cells


ROWS = list(rows())


def code_of(cell):
    assert re.fullmatch("`[^`]+`", cell), cell
    return cell[1:-1]


def value_of(variable):
    return VALUES.get(variable, f"value-of-{variable}")


def variables_of(left):
    return [each for each in re.findall(r"`(\w+)`", left) if each.isupper() and "_" in each]


DRIVER = """
import ast, json, os, sys, traceback, warnings

from rlm_kernel.config import FIELDS

prelude, rows = json.load(sys.stdin)


def in_repl(code):
    from rlm_kernel import RLM, ScriptedModel
    root = ScriptedModel(["FINAL(first)", "FINAL(first)", f"```repl\\n{code}\\n```"], name="root")
    with RLM(model=root, sub_model=ScriptedModel(lambda request: "a reply", name="sub")) as rlm:
        with rlm.session("a context") as session:
            session.ask("one")
            answer = session.ask("two")
    assert answer, answer.reason
    return answer.value


def run(code, namespace):
    tree = ast.parse(code)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "row", "exec"), namespace)
    return None if last is None else eval(compile(ast.Expression(last.value), "row", "eval"), namespace)


def outcome(code, variables, repl):
    namespace = {}
    exec(prelude, namespace)
    # What would win over these variables.
    rivals = {name for field in FIELDS if variables.keys() & {*field.variables} for name in field.variables}
    before = {name: os.environ.pop(name, None) for name in rivals | variables.keys()}
    os.environ.update(variables)
    try:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            value = in_repl(code) if repl else run(code, namespace)
        value = value if isinstance(value, (str, int, float)) else repr(value)
        return [True, value, [str(each.message) for each in seen]]
    except BaseException:
        return [False, traceback.format_exc(), []]
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


found = []
for code, variables, repl in rows:
    found.append([outcome(code, variables, repl), outcome(code, {}, repl) if variables else None])
print("\\n=====" + json.dumps(found))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("switching")
    (folder / "report.txt").write_text("a report\n")
    return folder


@pytest.fixture(scope="module")
def endpoint():
    def script(request):
        return (
            "FINAL(42)"
            if len(request.messages) > 2
            else ["a reply", "```repl\nFINAL(42)\n```"][len(request.messages) - 1]
        )

    with served(dict.fromkeys(("gpt-5", "gpt-5-mini", "gpt-5-nano"), script)) as server:
        yield {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "OPENAI_BASE_URL": server.base_url,
            "OPENAI_API_KEY": KEY,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }


@pytest.fixture(scope="module")
def outcomes(endpoint, folder):
    """What came of each row of Python, by its left cell and its code."""
    sent = [
        (left, code_of(code), {name: value_of(name) for name in variables_of(left)}, "in the REPL" in left)
        for _, left, here, code in ROWS
        if not here.startswith("none") and not code.startswith("`jupyter")
    ]
    done = subprocess.run(
        [sys.executable, "-c", DRIVER],
        input=json.dumps([PRELUDE, [each[1:] for each in sent]]),
        cwd=folder,
        env=endpoint,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.rpartition("\n=====")[2])
    return {(row[0], row[1]): each for row, each in zip(sent, found, strict=True)}


@pytest.mark.parametrize(
    ("package", "left", "here", "code"), ROWS, ids=[f"{package}: {left[:60]}" for package, left, _, _ in ROWS]
)
def test_row(package, left, here, code, outcomes, endpoint, folder):
    if here.startswith("none"):
        assert re.fullmatch(r"none: .{15,}", here)
        assert code == ""
        assert_not_here(package, left)
        return
    if code.startswith("`jupyter rlm"):
        command = code_of(code).replace("jupyter rlm", f"{sys.executable} -m rlm_kernel.cli")
        # The demo asks a scripted model of its own where no endpoint is named.
        demo = command.endswith(" demo")
        environment = {name: each for name, each in endpoint.items() if not (demo and "OPENAI" in name)}
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=folder,
            env={**environment, **({} if demo else {"RLM_MODEL": "gpt-5"})},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return
    (worked, value, warned), without = outcomes[left, code_of(code)]
    assert worked, value
    variables = variables_of(left)
    if variables:
        assert str(value) == value_of(variables[0]) or without[0] is False
    else:
        assert not warned or "with a warning" in here or "running out" in here, warned


def assert_not_here(package, left):
    for module, names in re.findall(r"from rlm(\S*) import ([\w, ]+)", left):
        for name in names.split(", "):
            with pytest.raises(ImportError):
                exec(f"from rlm_kernel.compat.{package.replace('-', '_')}{module} import {name}", {})
    known = {variable for field in FIELDS for variable in field.variables}
    assert not known & set(variables_of(left))


def test_every_argument_and_every_public_name_has_a_row():
    told = {package: "\n".join(left for each, left, _, _ in ROWS if each == package) for package, *_ in ROWS}
    for package, module, made in (
        ("rlms", rlms, rlms.RLM),
        ("rlm-minimal", rlm_minimal, rlm_minimal.RLM_REPL),
    ):
        names = set(inspect.signature(made).parameters)
        names |= set(module.__all__) - {"CompletionFailedError", "UnsupportedArgumentError"}
        missing = {name for name in names if not re.search(rf"\b{name}\b", told[package])}
        assert missing == set()
    read = {variable for field in FIELDS for variable in field.variables}
    minimal = {name for name in read if not name.startswith(("OPENAI_", "RLM_", "JUPYTER_"))}
    assert minimal <= set(re.findall(r"`(\w+)`", told["rlm-minimal"]))
