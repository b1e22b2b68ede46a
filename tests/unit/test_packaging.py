"""What is installed: the wheel's files and metadata, and the source distribution's."""

import email
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import rlm_kernel

ROOT = Path(__file__).parents[2]
SOURCES = (
    *("rlm_kernel", "extension", "hatch_build.py", "pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE"),
    *("Makefile", ".env-example"),
)
EXTENSION = "share/jupyter/labextensions/@rlm-kernel/labextension"


def copy_sources(target):
    """Copy what a clone has; the ignored folders are those that the extension's build leaves."""
    ignored = shutil.ignore_patterns("__pycache__", "node_modules", "lib", "labextension")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, target / name)
    return target


def build(source, target, **environment):
    """Build without network; return what `build` said, and whether it failed."""
    command = [sys.executable, "-m", "build", "--no-isolation", "--skip-dependency-check", "--outdir", target]
    env = {**os.environ, **environment}
    done = subprocess.run(
        [*command, source], capture_output=True, text=True, check=False, timeout=120, env=env
    )
    return done.stdout + done.stderr, done.returncode != 0


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """Build from a copy; return the folder with the wheel and the source distribution."""
    target = tmp_path_factory.mktemp("dist")
    said, failed = build(copy_sources(tmp_path_factory.mktemp("source")), target)
    assert not failed, said
    assert "This wheel goes without it: the JupyterLab extension is not built" in said
    return target


@pytest.fixture(scope="module")
def wheel(built) -> zipfile.ZipFile:
    with zipfile.ZipFile(next(built.glob("*.whl"))) as archive:
        yield archive


def test_wheel_holds_the_package_and_nothing_else(wheel):
    names = set(wheel.namelist())
    package = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "rlm_kernel").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    shared = {name for name in names if ".data/" in name}
    assert {name for name in names if ".dist-info/" not in name} - shared == package
    kernel = "data/share/jupyter/kernels/rlm"
    assert {name.partition(".data/")[2] for name in shared} == {
        *(f"{kernel}/kernel.json", f"{kernel}/logo-svg.svg"),
        *(f"{kernel}/logo-32x32.png", f"{kernel}/logo-64x64.png"),
    }
    assert {"rlm_kernel/py.typed", "rlm_kernel/guest/__init__.py"} <= names


def test_wheel_metadata(wheel):
    info = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    metadata = email.message_from_bytes(wheel.read(info))
    assert metadata["Name"] == "rlm-kernel"
    assert metadata["Version"] == rlm_kernel.__version__
    assert metadata["License-Expression"] == "MIT"
    assert f'requires-python = "{metadata["Requires-Python"]}"' in (ROOT / "pyproject.toml").read_text(
        "utf-8"
    )
    assert "Framework :: Jupyter" in metadata.get_all("Classifier")
    requires = metadata.get_all("Requires-Dist")
    base = {line.partition(">")[0] for line in requires if "extra ==" not in line}
    assert base == {
        *("aiohttp", "anywidget", "ipykernel", "ipywidgets", "jsonschema", "jupyter-client", "nbformat"),
        *("openai", "pydantic", "rich"),
    }
    assert set(metadata.get_all("Provides-Extra")) == {
        *("bench", "cost", "data", "docs", "gateway", "keyring", "local", "mcp", "otel", "pyodide"),
        *("readers", "serve", "store", "test"),
    }
    names = wheel.namelist()
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    points = wheel.read(info.replace("METADATA", "entry_points.txt")).decode()
    assert "jupyter-rlm = rlm_kernel.cli:main" in points


def test_source_distribution_can_be_built_from(built):
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    expected = {
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "CHANGELOG.md",
        ".env-example",
        "rlm_kernel/py.typed",
        "hatch_build.py",
        "extension/package-lock.json",
        "extension/src/index.ts",
    }
    assert expected <= names


def test_distributions_hold_the_extension_where_it_is_built(tmp_path):
    (tmp_path / "source").mkdir()
    source = copy_sources(tmp_path / "source")
    said, failed = build(source, tmp_path / "dist", RLM_REQUIRE_EXTENSION="1")
    assert failed
    assert "make extension" in said
    shutil.rmtree(tmp_path / "dist", ignore_errors=True)
    for name, text in (("package.json", "{}"), ("static/remoteEntry.js", "var remote;")):
        path = source / "extension" / "labextension" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (source / "extension" / "node_modules").mkdir()
    (source / "extension" / "node_modules" / "leftover.js").touch()
    # The wheel is built from the source distribution, which has the built files therefore.
    said, failed = build(source, tmp_path / "dist", RLM_REQUIRE_EXTENSION="1")
    assert not failed, said
    with zipfile.ZipFile(next((tmp_path / "dist").glob("*.whl"))) as archive:
        names = {name.partition(".data/data/")[2] for name in archive.namelist() if EXTENSION in name}
        assert not [name for name in archive.namelist() if "leftover" in name]
    assert names == {
        f"{EXTENSION}/{name}" for name in ("package.json", "static/remoteEntry.js", "install.json")
    }
