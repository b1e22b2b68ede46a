"""`%rlm` where nobody watches (nbclient, papermill), in a terminal, and with a key that is typed."""

from __future__ import annotations

import re
import subprocess
import sys

import nbformat
import pytest
from notebooks import KEY, ROOT, Endpoint, Notebook


@pytest.fixture(scope="module")
def endpoint():
    endpoint = Endpoint()
    yield endpoint
    endpoint.close()


@pytest.fixture
def fresh(endpoint):
    endpoint.reset()
    return endpoint


def write(path, *sources, tags=()):
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    cells[0].metadata["tags"] = list(tags)
    kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernelspec}), path)


def execute(code, *arguments, folder, environment):
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=folder,
        env={**environment, "IPYTHONDIR": str(folder / "ipython")},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


NBCLIENT = """
import sys, nbformat
from nbclient import NotebookClient
book = nbformat.read(sys.argv[1], 4)
try:
    NotebookClient(book, timeout=60, allow_errors=False).execute()
finally:
    nbformat.write(book, sys.argv[2])
"""
PAPERMILL = """
import sys, papermill
papermill.execute_notebook(sys.argv[1], sys.argv[2], {"old": "xyz"}, progress_bar=False)
"""


def outputs_of(path):
    book = nbformat.read(path, 4)
    nbformat.validate(book)
    assert "widgets" not in book.metadata
    assert KEY not in path.read_text()
    return [cell.outputs for cell in book.cells]


def test_nbclient(tmp_path):
    source = tmp_path / "book.ipynb"
    write(
        source,
        "%load_ext rlm_kernel\nold, new = 'abc', 'abcd'",
        "%rlm What changed? -c old -c new",
        "%%rlm -c old -o found\nWhat is it?",
        "found.text",
    )
    results = []
    for name in ("one.ipynb", "two.ipynb"):
        # Of its own, since a scripted model remembers what it has read: that is cached.
        endpoint = Endpoint()
        try:
            environment = endpoint.environment()
            done = execute(NBCLIENT, source, tmp_path / name, folder=tmp_path, environment=environment)
        finally:
            endpoint.close()
        assert done.returncode == 0, done.stderr
        results.append(outputs_of(tmp_path / name))
    assert results[0] == results[1]
    loaded, asked, named, text = results[0]
    assert loaded == []
    assert [each.output_type for each in asked] == ["display_data"]
    assert asked[0].data["text/plain"].startswith("old is abc, new is abcd\n")
    assert "Turn 2" in asked[0].data["text/html"]
    assert [each.output_type for each in named] == ["display_data"]
    assert text[0].data["text/plain"] == "'old is abc'"


def test_a_question_without_answer_stops_the_notebook(fresh, tmp_path):
    source = tmp_path / "book.ipynb"
    write(
        source,
        "%load_ext rlm_kernel\nold = 'abc'",
        "%rlm --iterations 1 no answer -c old",
        "print('after')",
    )
    done = execute(
        NBCLIENT, source, tmp_path / "done.ipynb", folder=tmp_path, environment=fresh.environment()
    )
    assert done.returncode != 0
    assert "NoAnswerError" in done.stderr
    _, asked, after = outputs_of(tmp_path / "done.ipynb")
    assert [each.output_type for each in asked] == ["display_data", "error"]
    assert len(asked[1].traceback) == 2
    assert after == []


def test_papermill(fresh, tmp_path):
    pytest.importorskip("papermill", reason="papermill is not installed")
    source = tmp_path / "book.ipynb"
    write(source, "old = 'abc'", "%load_ext rlm_kernel\n%rlm What is it? -c old", tags=["parameters"])
    target = tmp_path / "done.ipynb"
    done = execute(PAPERMILL, source, target, folder=tmp_path, environment=fresh.environment())
    assert done.returncode == 0, done.stderr
    outputs = outputs_of(target)[-1]
    assert [each.output_type for each in outputs] == ["display_data"]
    assert outputs[0].data["text/plain"].startswith("old is xyz\n")


def test_no_key_can_be_typed_where_nobody_is(fresh, tmp_path):
    source = tmp_path / "book.ipynb"
    write(source, "%load_ext rlm_kernel", "%rlm login")
    done = execute(
        NBCLIENT, source, tmp_path / "done.ipynb", folder=tmp_path, environment=fresh.environment(key=False)
    )
    assert "nobody is here to type a key" in done.stderr
    assert "OPENAI_API_KEY" in done.stderr


def test_a_typed_key_is_used_and_left_nowhere(fresh, tmp_path):
    # No keyring of this machine's user may be asked.
    environment = {
        **fresh.environment(key=False),
        "PYTHON_KEYRING_BACKEND": "keyring.backends.null.Keyring",
    }
    notebook = Notebook("python3", environment, tmp_path)
    try:
        notebook.run("%load_ext rlm_kernel\nold = 'abc'")
        name, _ = notebook.send("%rlm What? -c old").failed()
        assert name in {"ConfigError", "NoAnswerError"}
        cell = notebook.send("%rlm login", answer=KEY).fine()
        assert [each["password"] for each in cell.asked] == [True]
        assert "in memory" in cell.text
        assert notebook.value("%rlm -q What? -c old\n_rlm.text") == "'old is abc'"
        assert "typed in this session" in notebook.run("%rlm config").last["text/plain"]
        kept = "import os\n[KEY in str(each) for each in (In, Out, os.environ, open(_rlm.trace).read())]"
        found = notebook.value(f"KEY = '{KEY[:12]}' + '{KEY[12:]}'\n{kept}")
        assert found == "[False, False, False, False]"
        assert "forgotten" in notebook.run("%rlm login --forget").text
        notebook.send("%rlm What? -c old").failed()
        assert notebook.send("%rlm login", answer="two words").failed()[1][0].endswith("that is no key")
        assert not any(KEY in str(each["content"]) for each in notebook.heard)
    finally:
        notebook.close()


@pytest.mark.skipif(sys.platform == "win32", reason="there is no terminal to play on Windows")
def test_terminal(fresh, tmp_path):
    import pexpect

    terminal = pexpect.spawn(
        sys.executable,
        ["-m", "IPython", "--simple-prompt", "--no-banner", "--colors=nocolor"],
        env={**fresh.environment(), "IPYTHONDIR": str(tmp_path), "TERM": "dumb"},
        cwd=str(tmp_path),
        encoding="utf-8",
        timeout=60,
        dimensions=(50, 160),
    )

    def enter(line):
        terminal.sendline(line)
        terminal.expect_exact(line)

    terminal.expect_exact("In [1]: ")
    enter("%load_ext rlm_kernel")
    terminal.expect_exact("In [2]: ")
    assert terminal.before.strip() == ""
    enter("old = 'abc'")
    terminal.expect_exact("In [3]: ")
    enter("%rlm Isn't it? -c old")
    terminal.expect_exact("Out[3]:")
    shown = terminal.before
    terminal.expect_exact("In [4]: ")
    assert (shown + terminal.before).count("old is abc") == 1
    assert "answered in" in shown
    enter("%rlm slow model? -c old")
    assert fresh.waiting.wait(30)
    terminal.sendintr()
    terminal.expect_exact("KeyboardInterrupt")
    terminal.expect_exact("In [5]: ")
    assert "Traceback" not in terminal.before
    enter("print(_rlm.status, '!')")
    terminal.expect_exact("cancelled !")
    terminal.expect_exact("In [6]: ")
    enter("%rlm --what is it")
    terminal.expect_exact("InputError: no option --what")
    terminal.expect_exact("In [7]: ")
    enter("exit")
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 0


def test_the_cells_in_the_docs(fresh, tmp_path):
    page = (ROOT / "docs" / "notebook.md").read_text(encoding="utf-8")
    cells = re.findall(r"^```ipython\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert len(cells) >= 5
    (tmp_path / "report.txt").write_text("2022: 3, 2023: 5")
    notebook = Notebook("python3", fresh.environment(), tmp_path)
    try:
        for cell in cells:
            notebook.run(cell)
    finally:
        notebook.close()
