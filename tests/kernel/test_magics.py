"""`%rlm` in real kernels, IPython's own and `Python (RLM)`, against a scripted endpoint."""

from __future__ import annotations

import nbformat
import pytest
from notebooks import KEY, Endpoint, Notebook

from rlm_kernel.kernels.rlm.install import install

TRACE = "application/vnd.rlm.trace+json"
WIDGET = "application/vnd.jupyter.widget-view+json"
BESIDE = "rlm-beside-panel"
ASK = "%rlm QUESTION: What changed? :END -c old -c new"


@pytest.fixture(scope="module")
def endpoint():
    endpoint = Endpoint()
    yield endpoint
    endpoint.close()


@pytest.fixture(scope="module")
def specs(tmp_path_factory):
    """A folder of Jupyter data with the kernelspec `rlm`."""
    prefix = tmp_path_factory.mktemp("prefix")
    install(prefix=str(prefix))
    return prefix / "share" / "jupyter"


@pytest.fixture(scope="module", params=["python3", "rlm"])
def kernel(request, endpoint, specs, tmp_path_factory):
    notebook = Notebook(request.param, endpoint.environment(), tmp_path_factory.mktemp("home"), path=specs)
    loaded = notebook.run("%load_ext rlm_kernel")
    assert [m["msg_type"] for m in loaded.heard if m["msg_type"] not in ("status", "execute_input")] == []
    notebook.name = request.param
    notebook.run("old = 'abc'\n%rlm -q What? -c old")
    yield notebook
    notebook.close()


@pytest.fixture
def notebook(kernel, endpoint):
    endpoint.reset()
    kernel.run("old, new = 'abc', 'abcd'")
    return kernel


def test_an_answer_shows_once_and_is_the_value(notebook, endpoint):
    cell = notebook.run(ASK)
    assert cell.value is None
    assert cell.text == ""
    assert len([each for each in cell.outputs("display_data") if BESIDE not in str(each)]) == 1
    assert set(cell.last) == {TRACE, "text/html", "text/plain"}
    assert cell.last["text/plain"].startswith("old is abc, new is abcd\n")
    assert notebook.value("_rlm is _ and _rlm.text") == "'old is abc, new is abcd'"
    shown = notebook.run("_rlm").outputs("execute_result")[0]["data"]
    assert set(shown) == {"text/html", "text/plain"}
    assert "old is abc" in shown["text/html"]
    assert endpoint.questions()[0] == "What changed?"


def test_a_question_stays_as_it_is(notebook, endpoint):
    question = 'Isn\'t `{old}` $new, "@old" %s {{x}} !ls -q?'
    cell = notebook.run(f"answer = %rlm QUESTION: {question} :END and what of @new?\nanswer.status")
    assert cell.value == "'answered'"
    assert len([each for each in cell.outputs("display_data") if BESIDE not in str(each)]) == 1
    assert endpoint.questions()[0] == question
    notebook.run(f"if True:\n    %rlm -q -c old -- QUESTION: {question} :END --budget")
    assert endpoint.questions()[-1] == question
    notebook.run(f"%%rlm -c old -q\nQUESTION: {question}\n  two lines :END")
    assert endpoint.questions()[-1] == f"{question}\n  two lines"
    ran = notebook.run("def ask():\n    %rlm -q QUESTION: Inside? :END -c old\n    return _rlm.text\nask()")
    assert ran.value == "'old is abc'"
    assert notebook.run("%rlm?").reply["payload"][0]["source"] == "page"


def test_quiet_plain_and_named(notebook):
    quiet = notebook.run("%rlm -q -o mine What? -c old")
    assert [m["msg_type"] for m in quiet.heard] == ["status", "execute_input", "status"]
    assert notebook.value("mine is _rlm and mine.text") == "'old is abc'"
    plain = notebook.run("%rlm --plain What? -c old")
    assert {TRACE, "text/html", "text/plain"} == set(plain.last)
    assert not plain.outputs("comm_open")
    running = [each["data"]["text/plain"] for each in plain.outputs("update_display_data")]
    assert any(text.startswith("Running: What?") for text in running)


def test_nobody_watching_gets_the_same_each_time(notebook):
    cells = [notebook.run(ASK, allow_stdin=False) for _ in range(2)]
    first, second = [[*cell.outputs("display_data"), *cell.outputs("execute_result")] for cell in cells]
    assert [each["data"] for each in first] == [each["data"] for each in second]
    assert [set(each["data"]) for each in first] == [{"text/html", "text/plain"}]
    assert not cells[0].outputs("comm_open")
    assert "Turn 2" in first[0]["data"]["text/html"]


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("What?", ("InputError", "nothing is named")),
        ("What? -c olt", ("ContextError", "did you mean old?")),
        ("-c old --budget much What?", ("InputError", "number of USD above 0")),
        ("-c old --bugdet 2 What?", ("InputError", "did you mean --budget?")),
        ("-c old --budget 2 What?", ("ConfigError", "RLMMagics.prices")),
        ("-m nosuch What? -c old", ("NoAnswerError", "nosuch")),
        ("--iterations 1 no answer -c old", ("NoAnswerError", "--iterations allows more")),
        ("trace the causes", ("InputError", "%rlm -- trace")),
        ("--continue -m other What?", ("InputError", "--continue")),
        ("export nowhere.txt", ("InputError", ".ipynb")),
        ("trace 99", ("InputError", "no run 99")),
        ("config modle x", ("InputError", "did you mean model?")),
        ("config max_depth deep", ("InputError", "whole number")),
        ("config api_key sk-canary-0123456789", ("InputError", "%rlm login")),
        ("say more", ("InputError", "no run is under way")),
        ("", ("InputError", "no question given")),
    ],
)
def test_errors_are_two_lines(notebook, line, error):
    cell = notebook.send(f"%rlm {line}")
    name, lines = cell.failed()
    assert name == error[0]
    assert len(lines) <= 2
    assert error[1] in "\n".join(lines)
    assert cell.outputs("error")[0]["traceback"] == lines


def test_a_question_that_was_refused_hides_no_run(notebook):
    notebook.run("%rlm -q What? -c old")
    # Refused where the run would begin: there is no such kernel.
    assert notebook.send("%rlm -c old --repl attach:/nowhere.json What?").failed()[0] == "ConfigError"
    entries = "get_ipython().magics_manager.registry['RLMMagics'].desk.entries"
    number, begun = notebook.value(f"{entries}[-1].number, {entries}[-1].begun").strip("()").split(", ")
    assert begun == "False"
    assert "old is abc" in notebook.run("%rlm trace").last["text/html"]
    assert notebook.run("%rlm insert --one").reply["payload"]
    name, lines = notebook.send(f"%rlm trace {number}").failed()
    assert (name, lines[0]) == (
        "InputError",
        f"InputError: run {number} never began: its question was refused",
    )


def test_models_of_an_endpoint_that_is_not_there(notebook):
    was = notebook.value("%config RLMMagics.base_url")
    notebook.run("%config RLMMagics.base_url = 'http://user:sk-canary-password@127.0.0.1:9/v1'")
    try:
        _, lines = notebook.send("%rlm models").failed()
    finally:
        notebook.run(f"%config RLMMagics.base_url = {was or None}")
    assert "127.0.0.1:9/v1: no answer" in lines[0]
    assert "sk-canary" not in "\n".join(lines)


def test_an_outcome_that_is_no_answer_is_kept(notebook):
    notebook.send("%rlm --iterations 1 no answer -c old").failed()
    assert notebook.value("_rlm.status, bool(_rlm)") == "('exhausted', False)"
    name, lines = notebook.send("%rlm --debug --iterations 1 no answer -c old").failed()
    assert name == "NoAnswerError"
    assert "Traceback" in "".join(lines)


@pytest.mark.parametrize("where", ["slow model", "slow sub-call", "slow cell"])
def test_an_interrupt_cancels_the_run(notebook, endpoint, where):
    cell = notebook.send(f"%rlm --sub-model other -c old {where}")
    assert endpoint.waiting.wait(30)
    notebook.manager.interrupt_kernel()
    name, lines = cell.failed()
    assert name == "KeyboardInterrupt"
    assert lines == ["KeyboardInterrupt: the run was cancelled; what it has found is in _rlm"]
    assert cell.last["text/plain"].startswith(("cancelled", "The run did not begin"))
    assert notebook.value("_rlm.status") == "'cancelled'"
    endpoint.gate.set()
    assert notebook.value("%rlm -q What? -c old\n_rlm.text") == "'old is abc'"


def test_in_the_background_told_something_and_continued(notebook, endpoint):
    cell = notebook.run("run = %rlm --bg -o found QUESTION: slow model? :END -c old")
    assert notebook.value("run.status, run.done") == "('running', False)"
    assert notebook.value("1 + 1") == "2"
    assert endpoint.waiting.wait(30)
    assert "is told" in notebook.run("%rlm say tell it: thanks").text
    endpoint.gate.set()
    assert notebook.value("run.wait().text") == "'old is abc and thanks'"
    notebook.run("import time\nwhile 'found' not in globals(): time.sleep(0.01)")
    assert notebook.value("(await run).text == found.text == _rlm.text") == "True"
    display = cell.outputs("display_data")[0]["transient"]["display_id"]
    late = [m["content"] for m in notebook.heard if TRACE in m["content"].get("data", {})][-1]
    assert late["transient"]["display_id"] == display
    # The kernel of the last run has its variables still; nothing is loaded twice.
    notebook.run("%rlm -q -- QUESTION: And @old ? :END -c old")
    notebook.run("%rlm -q What? -c old -c new")
    again = notebook.value("%rlm -q --continue And again?\n_rlm.text")
    assert again == "'old is abc, new is abcd'"


def test_commands_show_what_they_have_to_say(notebook):
    notebook.run("%rlm -q QUESTION: What changed? :END -c old -c new")
    assert "local" in notebook.run("%rlm config repl").last["text/plain"]
    used = notebook.run("%rlm use old").last["text/plain"]
    assert "3 chars" in used
    assert notebook.value("%rlm -q What?\n_rlm.text") == "'old is abc'"
    models = notebook.run("%rlm models").last["text/plain"]
    assert "scripted" in models
    assert "?" in models
    cost = notebook.run("%rlm cost").last
    assert "What changed?" in cost["text/html"]
    assert "is not known" in cost["text/plain"]
    assert "scripted" in notebook.run("%rlm cost last --by model").last["text/plain"]
    assert "old is abc" in notebook.run("%rlm trace").last["text/html"]
    assert KEY not in notebook.run("%rlm doctor --endpoint").last["text/plain"]
    assert "kept = [name" in notebook.run("%rlm trace --node c2").last["text/plain"]
    payload = notebook.run("%rlm insert --one").reply["payload"]
    assert [each["source"] for each in payload] == ["set_next_input"]
    assert payload[0]["replace"] is False
    assert payload[0]["text"].startswith("# %% turn 1, block 1\nkept = [")


def send(notebook, comm, content):
    data = {"comm_id": comm, "data": {"method": "custom", "content": content}}
    notebook.client.shell_channel.send(notebook.client.session.msg("comm_msg", data))


def test_cells_are_inserted_by_the_page(notebook):
    notebook.run(ASK)
    cell = notebook.run("%rlm insert")
    assert cell.reply["payload"] == []
    opened = next(each for each in cell.outputs("comm_open") if "_sources" in each["data"]["state"])
    comm = opened["comm_id"]
    sources = opened["data"]["state"]["_sources"]
    assert [each.splitlines()[0] for each in sources] == ["# %% turn 1, block 1", "# %% turn 2, block 1"]
    shown = cell.last
    assert shown[WIDGET]["model_id"] == comm
    # Where there are no widgets, the code is read.
    assert all(each in shown["text/plain"] for each in sources)
    send(notebook, comm, {"op": "inserted"})
    closed = cell.until(lambda m: m["msg_type"] == "comm_close")
    assert closed["content"]["comm_id"] == comm
    assert set(cell.last) == {"text/plain", "text/html"}
    assert cell.last["text/plain"].endswith(", below")


def test_a_page_that_shows_no_panel_gets_a_line(notebook, endpoint):
    notebook.run("from rlm_kernel.notebook import RunPanel\nRunPanel._page = False")
    cell = notebook.send("%rlm slow model -c old")
    hears = notebook.name == "rlm"

    def line(message):
        data = message["content"].get("data", {})
        return "Running: slow model" in data.get("text/html", "") and WIDGET not in data

    first = cell.until(line)
    panel = next(each for each in cell.outputs("update_display_data") if WIDGET in each["data"])
    assert "Run in progress" in panel["data"]["text/html"]
    same = first["content"]["transient"]["display_id"] == panel["transient"]["display_id"]
    assert same is hears
    assert (BESIDE in first["content"]["data"]["text/html"]) is not hears
    comm = panel["data"][WIDGET]["model_id"]
    send(notebook, comm, {"op": "ping"})
    if hears:
        # The page has been slow, and shows the panel after all.
        seen = len(cell.heard)
        cell.until(lambda m: WIDGET in m["content"].get("data", {}) and m not in cell.heard[:seen])
    endpoint.gate.set()
    cell.fine()
    last = {each["transient"]["display_id"]: each["data"] for each in cell.outputs("update_display_data")}
    assert TRACE in last.pop(panel["transient"]["display_id"])
    assert list(last.values()) == ([] if hears else [{"text/plain": ""}])
    # From now on the kernel knows that panels are shown.
    assert notebook.value("RunPanel.heard_before()") == "True"


@pytest.mark.parametrize("suffix", ["ipynb", "html", "md", "jsonl"])
def test_export(notebook, tmp_path, suffix):
    notebook.run("old = 'abc' * 1000\n%rlm -q What? -c old")
    target = tmp_path / f"run.{suffix}"
    assert str(target) in notebook.run(f"%rlm export {target}").text
    text = target.read_text()
    assert "kept = [name" in text
    assert KEY not in text
    assert "--force" in notebook.send(f"%rlm export {target}").failed()[1][1]
    notebook.run(f"%rlm export {target} --force --run 1")


def test_a_run_exported_as_a_notebook_runs_again(notebook, endpoint, tmp_path):
    notebook.run("old = 'abc'\n%rlm -q What? -c old")
    notebook.run(f"%rlm export {tmp_path / 'run.ipynb'}")
    endpoint.reset()
    cells = nbformat.read(tmp_path / "run.ipynb", 4).cells
    code = [cell.source for cell in cells if cell.cell_type == "code"]
    notebook.run("del old")
    for source in code:
        notebook.run(source)
    assert endpoint.server.requests == []


def test_prices_make_caps_hold(notebook):
    notebook.run("%config RLMMagics.prices = {'scripted': (100, 200)}")
    name, lines = notebook.send("%rlm --budget 0.00001 What? -c old").failed()
    assert name == "NoAnswerError"
    assert "over budget" in lines[0]
    assert "$" in notebook.run("%rlm cost last").last["text/plain"]
    notebook.run("%config RLMMagics.prices = {}")


def test_config_by_form_and_line(notebook):
    form = notebook.run("%rlm config")
    assert "application/vnd.jupyter.widget-view+json" in form.last
    assert "max_depth" in form.last["text/plain"]
    assert KEY not in str(form.heard)
    notebook.run("%rlm config max_iterations 1")
    assert "this notebook" in notebook.run("%rlm config max_iterations").last["text/plain"]
    notebook.send("%rlm no answer -c old").failed()
    assert notebook.value("_rlm.iterations") == "1"
    notebook.run("%rlm config max_iterations default")
    assert "default" in notebook.run("%rlm config max_iterations").last["text/plain"]


def test_the_form_asks(notebook):
    code = """
    from rlm_kernel.notebook import ask
    form = ask()
    form.contexts.value = ["old"]
    form.question.value = "What?"
    form.button.click()
    run = form.run
    """
    notebook.run("\n".join(line.strip() for line in code.splitlines()))
    assert (
        notebook.value("run.wait().text, type(form.place.children[0]).__name__")
        == "('old is abc', 'RunPanel')"
    )
    notebook.run("form.budget.value = 'much'\nform.button.click()")
    assert "a number of USD above 0" in notebook.value("form.said.value")


@pytest.mark.parametrize(
    ("code", "first", "absent"),
    [
        ("%rlm us", "use", "user"),
        ("%rlm What? -c ol", "old", "oldest"),
        ("%%rlm -c fra", "frame", "frozenset"),
        ("%rlm Is it @ne", "@new", "@"),
        ("%rlm -m s", "scripted", "sum"),
        ("%rlm --bud", "--budget", "--bg"),
        ("x = %rlm config max_", "max_depth", "max"),
        ("%rlm trace ", None, "max"),
    ],
)
def test_completion(notebook, code, first, absent):
    notebook.run("frame = [1, 2, 3]")
    notebook.client.complete(code, len(code))
    reply = notebook.client.get_shell_msg(timeout=30)["content"]
    if first is None:
        assert reply["matches"][-1] == "1"
        return
    assert first == reply["matches"][0]
    assert absent not in reply["matches"]
    assert code[: reply["cursor_start"]] + first != code
    kinds = {each["text"]: each["type"] for each in reply["metadata"]["_jupyter_types_experimental"]}
    if first == "old":
        assert kinds["old"].split("\N{NO-BREAK SPACE}") == ["str", "3", "chars"]
    if first == "frame":
        assert kinds["frame"].split("\N{NO-BREAK SPACE}") == ["list", "3", "items"]


def test_in_the_users_own_shell(notebook):
    notebook.run("globals().pop('kept', None)\n%rlm -q --repl shell What? -c old -c new")
    assert notebook.value("_rlm.text, 'kept' in globals()") == "('old is abc, new is abcd', False)"
    notebook.run("%rlm -q --repl shell --share What?")
    assert notebook.value("_rlm.text, kept") == "('old is abc, new is abcd', ['old', 'new'])"
    notebook.run("del kept")
    # What is asked next has a kernel of its own again.
    assert notebook.value("%rlm -q What? -c old\n_rlm.text") == "'old is abc'"


def test_an_interrupt_in_the_users_own_shell(notebook, endpoint):
    cell = notebook.send("%rlm --repl shell --sub-model other slow cell -c old")
    assert endpoint.waiting.wait(30)
    notebook.manager.interrupt_kernel()
    assert cell.failed()[0] == "KeyboardInterrupt"
    assert notebook.value("_rlm.status") == "'cancelled'"
    assert notebook.value("1 + 1") == "2"
