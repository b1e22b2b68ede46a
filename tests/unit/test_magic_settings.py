"""Where a notebook's settings and keys come from."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from rlm_kernel import load_ipython_extension, unload_ipython_extension
from rlm_kernel.errors import ConfigError, ContextError
from rlm_kernel.notebook.settings import Keys, settle
from rlm_kernel.notebook.subjects import about, contexts, variables
from rlm_kernel.notebook.tables import Table

KEY = "sk-canary-settings-0123456789"
OTHER = "https://example.org/v1"


@pytest.fixture
def keys(monkeypatch):
    """Keys without a keyring."""
    monkeypatch.setitem(sys.modules, "keyring", None)
    monkeypatch.setattr("rlm_kernel.notebook.settings._keyring", lambda: None)
    return Keys()


def test_each_source_wins_over_the_next(keys):
    environment = {"RLM_MODEL": "environment", "RLM_MAX_DEPTH": "3"}
    file = {"model": "file", "max_depth": 4, "max_iterations": 5}
    notebook = {"model": "notebook", "cell_timeout": "none"}
    found = settle({"model": "option"}, notebook, file, keys, environment)
    assert (found["model"].value, found["model"].origin) == ("option", "option")
    found = settle({}, notebook, file, keys, environment)
    assert (found["model"].value, found["model"].origin) == ("notebook", "this notebook")
    assert (found["cell_timeout"].value, found["cell_timeout"].origin) == (None, "this notebook")
    found = settle({}, {}, file, keys, environment)
    assert (found["model"].value, found["model"].origin) == ("environment", "environment variable RLM_MODEL")
    assert (found["max_depth"].value, found["max_depth"].origin) == (3, "environment variable RLM_MAX_DEPTH")
    assert (found["max_iterations"].value, found["max_iterations"].origin) == (5, "configuration file")
    assert found["repl"].origin == "default"
    with pytest.raises(ConfigError):
        settle({"max_depth": "deep"}, {}, {}, keys, {})


def test_a_key_goes_to_its_own_endpoint_only(keys):
    keys.add(None, KEY)
    found = settle({}, {}, {}, keys, {})["api_key"]
    assert (found.value, found.origin) == (KEY, "typed in this session")
    assert KEY not in repr(found)
    assert settle({}, {"base_url": OTHER}, {}, keys, {})["api_key"].value is None
    keys.forget(None)
    assert settle({}, {}, {}, keys, {})["api_key"].value is None


def test_a_keyring_keeps_what_it_is_told_to_keep(monkeypatch):
    keyring = pytest.importorskip("keyring", reason="keyring is not installed")
    from keyring.backend import KeyringBackend

    class Memory(KeyringBackend):
        priority = 1

        def __init__(self):
            self.kept = {}

        def get_password(self, service, username):
            return self.kept.get((service, username))

        def set_password(self, service, username, password):
            self.kept[service, username] = password

        def delete_password(self, service, username):
            del self.kept[service, username]

    backend = Memory()
    monkeypatch.setattr(keyring, "get_keyring", lambda: backend)
    monkeypatch.setattr(keyring.core, "_keyring_backend", backend)
    Keys().add(OTHER, KEY)
    assert backend.kept == {}
    Keys().add(OTHER, KEY, keep=True)
    assert (Keys().kept(OTHER), Keys().kept(None), Keys().typed(OTHER)) == (KEY, None, None)
    found = settle({}, {"base_url": OTHER}, {}, Keys(), {})["api_key"]
    assert (found.value, found.origin) == (KEY, "keyring")
    found = settle({}, {"base_url": OTHER}, {}, Keys(), {"OPENAI_API_KEY": "sk-canary-other-key"})["api_key"]
    assert found.origin == "environment variable OPENAI_API_KEY"
    Keys().forget(OTHER)
    assert backend.kept == {}


def test_without_a_keyring_none_is_promised(keys):
    with pytest.raises(ConfigError, match="no keyring"):
        keys.add(None, KEY, keep=True)


def test_contexts_are_variables_and_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_text("a")
    Path("b.txt").write_text("b")
    names = {"old": "1", "frame": [1]}
    assert contexts(["old", "a.txt"], names) == {"old": "1", "context": Path("a.txt")}
    assert contexts(["a.txt", "b.txt"], names)["context"] == [Path("a.txt"), Path("b.txt")]
    assert contexts(["v1=a.txt", "v2=b.txt"], names) == {"v1": Path("a.txt"), "v2": Path("b.txt")}
    with pytest.raises(ContextError) as caught:
        contexts(["fraem"], names)
    assert caught.value.hint == "did you mean frame?"
    with pytest.raises(ContextError, match=r"no file c\.txt"):
        contexts(["c.txt"], names)


def test_variables_come_texts_first_and_without_tools():
    namespace = {"z": "text", "a": 1, "_hidden": "x", "f": len, "sys": sys, "In": []}
    assert [name for name, _ in variables(namespace, ["In"])] == ["z", "a"]
    assert [about(value) for value in ("abc", b"ab", [1], {}, 5, Path("x"))] == [
        *("str 3 chars", "bytes 2 bytes", "list 1 items", "dict 0 items", "int", type(Path("x")).__name__)
    ]


def test_no_length_is_asked_of_objects_that_may_have_to_work_for_it():
    class Query:
        def __len__(self):
            raise AssertionError

    assert about(Query()) == "Query"
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    assert about(pandas.DataFrame({"a": [1, 2], "b": [3, 4]})) == "DataFrame 2 x 2"


def test_tables():
    table = Table(("name", "n"), [("<b>", "10"), ("long name", "5")], ("n",), ["a note & more"])
    assert str(table) == "name        n\n<b>        10\nlong name   5\na note & more"
    assert "&lt;b&gt;" in table._repr_html_()
    assert "a note &amp; more" in table._repr_html_()


@pytest.fixture
def shell(monkeypatch, tmp_path):
    """A shell that is configured by a file."""
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    config = Config()
    config.HistoryManager.enabled = False
    config.RLMMagics.max_depth = 3
    config.RLMMagics.model = "file"
    config.RLMMagics.plain = True
    shell = InteractiveShell(config=config)
    yield shell
    unload_ipython_extension(shell)


def test_the_extension_comes_and_goes(shell, capsys):
    load_ipython_extension(shell)
    assert capsys.readouterr() == ("", "")
    magics = shell.magics_manager.registry["RLMMagics"]
    load_ipython_extension(shell)
    assert shell.magics_manager.registry["RLMMagics"] is magics
    assert (magics.settings()["max_depth"].value, magics.plain) == (3, True)
    assert magics.settings()["max_depth"].origin == "configuration file"
    shell.run_line_magic("config", "RLMMagics.max_depth = 2")
    assert (magics.settings()["max_depth"].value, magics.settings()["max_depth"].origin) == (
        2,
        "this notebook",
    )
    shell.run_line_magic("rlm", "config max_depth default")
    assert magics.settings()["max_depth"].value == 3
    shell.run_line_magic("rlm", "config model notebook")
    assert magics.settings({"model": "option"})["model"].value == "option"
    unload_ipython_extension(shell)
    assert shell.find_line_magic("rlm") is None
    assert shell.transform_cell("%rlm?") != ""
    load_ipython_extension(shell)
    assert shell.find_cell_magic("rlm") is not None
