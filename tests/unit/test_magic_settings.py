"""Where a notebook's settings and keys come from."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

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
    assert Keys().find(OTHER) == (KEY, "keyring")
    assert Keys().find(None) is None
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
    assert [about(value) for value in ("abc", b"ab", [1], {}, 5)] == [
        *("str 3 chars", "bytes 2 bytes", "list 1 items", "dict 0 items", "int")
    ]


def test_tables():
    table = Table(("name", "n"), [("<b>", "10"), ("long name", "5")], ("n",), ["a note & more"])
    assert str(table) == "name        n\n<b>        10\nlong name   5\na note & more"
    assert "&lt;b&gt;" in table._repr_html_()
    assert "a note &amp; more" in table._repr_html_()
