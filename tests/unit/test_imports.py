"""The import graph runs one way, what also runs in Pyodide stays standard library, imports stay light."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

import rlm_kernel

PACKAGE = Path(rlm_kernel.__file__).parent
ROOT = PACKAGE.parent
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}

# A module may import from its own layer and those above it in this list. A name stands for the module and
# all in it, unless a longer one is listed.
LAYERS = (
    ("estimate", "errors", "page", "usage", "messages", "outputs", "guest", "documents", "evidence"),
    ("events", "config", "models.base"),
    ("barecode", "ledger", "passages", "files", "context", "dialect", "prompts", "feedback", "answer"),
    ("trace",),
    ("models", "repl", "shapes", "hooks", "history"),
    ("engine", "runs"),
    ("tools", "checks"),
    ("rlm", "background", "live", "session"),
    ("",),  # the package itself names the facade
    (
        *("kernels", "notebook", "service", "bench", "compat", "terminal", "demo", "doctor", "isolation"),
        *("loopback", "cli"),
    ),
)
# Where Jupyter looks for a function in the package itself, that leads to what it is meant for.
HOOKS = {"rlm_kernel": {"rlm_kernel.notebook.magics"}}
# These also run in Pyodide: only the standard library at import, no thread, no process.
PURE = (
    *("estimate", "errors", "usage", "messages", "outputs", "guest", "documents", "evidence"),
    *("events", "config", "models.base"),
    *("barecode", "ledger", "passages", "files", "context", "dialect", "prompts", "feedback", "answer"),
    *("page", "shapes", "hooks", "history", "engine", "runs", "repl.lite", "models.fetched"),
)
# What a run in a web page imports; there are no processes there.
IN_A_PAGE = ("rlm", "repl.lite.session", *(f"models.{each}" for each in ("openai", "responses", "fetched")))
HEAVY = {
    *(
        "openai",
        "zmq",
        "IPython",
        "ipywidgets",
        "anywidget",
        "ipykernel",
        "jupyter_client",
        "aiohttp",
        "rich",
    ),
    *("jsonschema", "pydantic", "httpx"),
    *("nbformat", "lxml", "pypdf", "docx", "pandas", "numpy", "pyarrow", "PIL", "tornado", "traitlets"),
}
STARTS_THREADS_OR_PROCESSES = {"threading", "subprocess", "multiprocessing", "concurrent"}


def short(module: str) -> str:
    """Return a module's name without that of the package."""
    return module.removeprefix("rlm_kernel").removeprefix(".")


def matches(module: str, names: tuple[str, ...]) -> str | None:
    """Return the longest of ``names`` that covers ``module``."""
    name = short(module)
    found = [each for each in names if name == each or (each and name.startswith(f"{each}."))]
    return max(found, key=len, default=None)


def rank(module: str) -> int | None:
    """Return the layer of a module: the one with the longest name that covers it."""
    found = [
        (len(name), layer)
        for layer, names in enumerate(LAYERS)
        if (name := matches(module, names)) is not None
    ]
    return max(found)[1] if found else None


def imported(module: str, *, everywhere: bool) -> set[str]:
    """Return what a module imports, in absolute names; in functions and for typing too if ``everywhere``."""
    path = MODULES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = set()
    for node in ast.walk(tree) if everywhere else _executed(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, *([base] if base else [])])
            names |= {full if (full := f"{base}.{alias.name}") in MODULES else base for alias in node.names}
    return names


def _executed(node: ast.AST):
    """Yield the nodes that run when the module is imported."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        yield child
        yield from _executed(child)


def inside(names: set[str]) -> set[str]:
    """Return those of ``names`` that are modules of this package."""
    return {name for name in names if name in MODULES}


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_one_way(module):
    own = rank(module)
    assert own is not None, f"{module} has no layer: add it to LAYERS"
    wrong = {name for name in inside(imported(module, everywhere=True)) if (rank(name) or 0) > own}
    assert not (wrong - {"rlm_kernel"} - HOOKS.get(module, set())), f"{module} imports from a later layer"


def test_no_cycles():
    packages = {name for name in MODULES if MODULES[name].name == "__init__.py"}
    graph = {
        module: {
            name
            for name in inside(imported(module, everywhere=False))
            if name != module and name not in packages
        }
        for module in MODULES
    }
    graphlib.TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("module", [name for name in MODULES if matches(name, PURE)])
def test_pure_modules_need_only_the_standard_library(module):
    outer = {name.partition(".")[0] for name in imported(module, everywhere=False)}
    assert outer <= sys.stdlib_module_names | {"rlm_kernel"}
    assert not outer & STARTS_THREADS_OR_PROCESSES or matches(module, ("guest",))


@pytest.mark.parametrize("start", [("engine",), IN_A_PAGE], ids=["the engine", "a run in a page"])
def test_importing_brings_in_the_standard_library_only(start):
    seen, todo = set(), [f"rlm_kernel.{name}" for name in start]
    while todo:
        module = todo.pop()
        if module in seen:
            continue
        seen.add(module)
        names = imported(module, everywhere=False)
        outer = {name.partition(".")[0] for name in names}
        assert outer <= sys.stdlib_module_names | {"rlm_kernel"}, module
        assert not outer & {"subprocess", "multiprocessing", "fcntl", "termios"}, module
        parents = [module.rsplit(".", n)[0] for n in range(1, module.count(".") + 1)]
        todo += [*inside(names), *parents]
    assert len(seen) > 10


@pytest.mark.parametrize("module", [name for name in MODULES if matches(name, ("guest",))])
def test_guest_imports_nothing_of_the_package_but_itself(module):
    names = inside(imported(module, everywhere=True))
    assert {name for name in names if not matches(name, ("guest",))} == set()


def test_trace_reads_events_only():
    for module in (name for name in MODULES if matches(name, ("trace",))):
        allowed = ("errors", "usage", "messages", "outputs", "evidence", "events", "trace")
        assert not {name for name in inside(imported(module, everywhere=True)) if not matches(name, allowed)}


@pytest.mark.parametrize("statement", ["import rlm_kernel", "import rlm_kernel.cli"])
def test_import_is_light(statement):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", statement],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "rlm_kernel" in loaded
    assert not loaded & HEAVY
