"""The sandbox's files: pinned, checked, made once, and said in words where they can't be had."""

from __future__ import annotations

import json
import os
import shutil

import pytest
from wasm import needs_deno

from rlm_kernel.errors import ConfigError, KernelStartError

pytestmark = needs_deno


@pytest.fixture
def core():
    """The folder of Pyodide's own files, as they were downloaded."""
    from rlm_kernel.repl.pyodide import runtime

    runtime.ensure()
    return runtime._cache() / f"core-{runtime.VERSION}"


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.setenv("RLM_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path


def test_a_local_copy_will_do_without_a_network(core, elsewhere, monkeypatch):
    from rlm_kernel.repl.pyodide import runtime

    copy = elsewhere / "copy"
    shutil.copytree(core, copy)
    monkeypatch.setenv("RLM_PYODIDE_PATH", str(copy))
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", "http://127.0.0.1:1/")
    made = runtime.ensure()
    assert made.folder.is_relative_to(elsewhere)
    assert runtime.find() == made
    snapshot = made.folder / "snapshot.bin"
    first = snapshot.stat().st_mtime_ns
    assert runtime.ensure() == made
    assert snapshot.stat().st_mtime_ns == first
    # Damage to any of its files is seen, and made good.
    for name in ("snapshot.bin", "worker.mjs"):
        with open(made.folder / name, "r+b") as file:
            file.seek(100)
            byte = file.read(1)
            file.seek(100)
            file.write(bytes([byte[0] ^ 1]))
        assert runtime.find() is None
        assert runtime.ensure() == made
        assert runtime.find() == made


def test_a_copy_that_is_another_version_is_refused(core, elsewhere, monkeypatch):
    from rlm_kernel.repl.pyodide import runtime

    copy = elsewhere / "copy"
    shutil.copytree(core, copy)
    with open(copy / "pyodide.asm.wasm", "ab") as file:
        file.write(b"x")
    monkeypatch.setenv("RLM_PYODIDE_PATH", str(copy))
    with pytest.raises(ConfigError, match=r"pyodide\.asm\.wasm is missing there, or not that of Pyodide"):
        runtime.ensure()


def test_without_a_registry_it_is_said_what_to_do(elsewhere, monkeypatch):
    from rlm_kernel.repl.pyodide import runtime

    monkeypatch.setenv("NPM_CONFIG_REGISTRY", "http://127.0.0.1:1/")
    with pytest.raises(
        KernelStartError, match=f"Pyodide {runtime.VERSION} could not be downloaded"
    ) as caught:
        runtime.ensure()
    assert "RLM_PYODIDE_PATH" in caught.value.hint
    assert "jupyter rlm warmup" in caught.value.hint
    assert not list((elsewhere / "cache" / "pyodide").glob("core-*"))


def test_what_the_registry_gives_must_be_what_is_pinned(core, elsewhere, monkeypatch):
    from rlm_kernel.repl.pyodide import runtime

    lock = json.loads(runtime.LOCK.read_text())
    pinned = lock["npm"][f"pyodide@{runtime.VERSION}"]
    pinned["integrity"] = pinned["integrity"][:-6] + "AAAA=="
    other = elsewhere / "other.lock.json"
    other.write_text(json.dumps(lock))
    monkeypatch.setattr(runtime, "LOCK", other)
    with pytest.raises(KernelStartError, match="could not be downloaded"):
        runtime.ensure()


def test_without_deno_the_extra_is_named(monkeypatch):
    import sys

    from rlm_kernel.repl.pyodide import runtime

    monkeypatch.setitem(sys.modules, "deno", None)
    monkeypatch.setenv("PATH", os.devnull)
    with pytest.raises(ConfigError, match="needs Deno") as caught:
        runtime.deno_command()
    assert "rlm-kernel[pyodide]" in caught.value.hint


@pytest.mark.parametrize(
    ("said", "has"), [("deno 2.7.11 (stable)", "2.7.11"), ("something else", "0"), ("deno 2.9.1", None)]
)
def test_another_deno_must_be_new_enough(said, has, tmp_path, monkeypatch):
    import sys

    from rlm_kernel.repl.pyodide import runtime

    other = tmp_path / "deno"
    other.write_text(f"#!/bin/sh\necho '{said}'\n")
    other.chmod(0o755)
    monkeypatch.setitem(sys.modules, "deno", None)
    monkeypatch.setenv("PATH", os.fspath(tmp_path))
    if has is None:
        assert runtime.deno_command() == str(other)
        return
    with pytest.raises(ConfigError, match=f"needs Deno 2.9.0, and .* has version {has}$"):
        runtime.deno_command()


def test_warmup_tells_where_it_is(capsys):
    from rlm_kernel.cli import main
    from rlm_kernel.repl.pyodide import runtime

    assert main(["warmup"]) == 0
    assert capsys.readouterr().out == f"Pyodide {runtime.VERSION} is ready in {runtime.find().folder}\n"
