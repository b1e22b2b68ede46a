"""What is installed: the wheel's files and metadata, and the source distribution's."""

import email
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import rlm_kernel

ROOT = Path(__file__).parents[2]
SOURCES = ("rlm_kernel", "pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE", "Makefile", ".env-example")


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """Build from a copy, without network; return the folder with the wheel and the source distribution."""
    source = tmp_path_factory.mktemp("source")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, source / name)
    target = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--skip-dependency-check"]
    done = subprocess.run(
        [*command, "--outdir", target, source], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
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
    }
    assert expected <= names
