"""Dockerfiles carried out without a container engine: by bubblewrap, in roots that are put together here.

The base image is this machine, read-only: its Python, its system folders. What a Dockerfile copies and makes
is at the same absolute paths as in the image. What a distribution does, apt-get and useradd, is left out.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
import yaml
from dockerfile_parse import DockerfileParser

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "remote_kernel_gateway" / "images"
# Where images put things; everything else is the machine's.
OWN = ("opt", "src", "home", "tmp", "etc/rlm-gateway")
_PASSED = re.compile(r"PIP_\w+|npm_config_\w+|NPM_CONFIG_\w+|\w+_(proxy|PROXY)|SSL_CERT_\w+|LANG|HOME")
_DISTRIBUTION = ("apt-get ", "useradd ")


def needs_bubblewrap():
    if shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed")


class Stage:
    """The root of an image that grows, and its settings."""

    def __init__(self, folder):
        self.folder = folder
        for each in OWN:
            (folder / each).mkdir(parents=True)
        self.variables = {}
        self.command = []
        self.volumes = []
        self.user = 0
        self.key = hashlib.sha256(f"{sys.version}".encode()).hexdigest()

    def path(self, inside):
        return self.folder / inside.lstrip("/")

    def arguments(self, *, writable):
        """What bubblewrap is told to show this root, its own folders writable or only its volumes."""
        told = ["bwrap", "--unshare-all", "--share-net", "--die-with-parent", "--new-session"]
        tops = {each.partition("/")[0] for each in OWN}
        for entry in sorted(os.listdir("/")):
            if entry not in {*tops, "proc", "dev", "sys"}:
                told += _shown(f"/{entry}")
        for entry in sorted(os.listdir("/etc")):
            told += _shown(f"/etc/{entry}")
        told += ["--proc", "/proc", "--dev", "/dev"]
        for each in OWN:
            told += ["--bind" if writable else "--ro-bind", os.fspath(self.folder / each), f"/{each}"]
        if not writable:
            for volume in self.volumes:
                told += ["--tmpfs", volume]
            told += [
                "--remount-ro",
                "/",
                "--cap-drop",
                "ALL",
                "--uid",
                str(self.user),
                "--gid",
                str(self.user),
            ]
        told += ["--clearenv"]
        given = (
            {name: value for name, value in os.environ.items() if _PASSED.fullmatch(name)} if writable else {}
        )
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        for name, value in {"PATH": path, **given, **self.variables}.items():
            told += ["--setenv", name, value]
        return told

    def extend(self, text):
        self.key = hashlib.sha256(f"{self.key}\0{text}".encode()).hexdigest()


def _shown(path):
    if os.path.islink(path):
        return ["--symlink", os.readlink(path), path]
    return ["--ro-bind-try", path, path]


def build(name, folder, cache, **given):
    """Carry out a Dockerfile; return its last stage. ``given`` are variables of every step beside its own.

    What takes long, installing pinned requirements, is kept in pytest's cache by all that leads to it.
    """
    parser = DockerfileParser(fileobj=io.BytesIO((IMAGES / f"{name}.Dockerfile").read_bytes()))
    kept = cache.mkdir("images")
    stages, stage = {}, None
    for number, step in enumerate(parser.structure):
        what, value = step["instruction"], step["value"]
        if what == "COMMENT":
            continue
        if what == "FROM":
            _, _, alias = value.partition(" AS ")
            stage = Stage(folder / f"stage-{number}")
            stages[alias or "last"] = stage
        elif what == "ENV":
            for pair in shlex.split(value):
                variable, _, setting = pair.partition("=")
                path = stage.variables.get("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
                stage.variables[variable] = setting.replace("$PATH", path)
            stage.extend(value)
        elif what == "COPY":
            _copy(stage, stages, value)
        elif what == "RUN" and value.startswith(_DISTRIBUTION):
            stage.path("/home/rlm").mkdir(exist_ok=True)
        elif what == "RUN":
            stage.extend(value)
            _run(stage, value, kept if "--requirement" in value else None, given)
        elif what == "USER":
            stage.user = int(value.partition(":")[0])
        elif what == "VOLUME":
            stage.volumes = yaml.safe_load(value)
        elif what == "CMD":
            stage.command = yaml.safe_load(value)
        else:
            assert what in {"WORKDIR", "EXPOSE", "ENTRYPOINT"}, step["content"]
    return stages["last"]


def _copy(stage, stages, value):
    *sources, target = [word for word in value.split() if not word.startswith("--")]
    origin = re.search(r"--from=(\w+)", value)
    base = stages[origin[1]].folder if origin else ROOT
    for source in sources:
        here = base / source.lstrip("/")
        there = stage.path(target) / here.name if target.endswith("/") else stage.path(target)
        if here.is_dir():
            ignored = None if origin else shutil.ignore_patterns("__pycache__")
            copy = _linked if origin else shutil.copy2
            shutil.copytree(here, there, symlinks=True, ignore=ignored, copy_function=copy)
        else:
            there.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(here, there)
        if not origin:
            stage.extend(f"{value} {_content(here)}")


def _linked(source, target):
    # Nothing that is installed is written to again in place.
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target


def _content(path):
    files = sorted(path.rglob("*.*")) if path.is_dir() else [path]
    digest = hashlib.sha256()
    for file in files:
        if file.is_file() and "__pycache__" not in file.parts:
            digest.update(f"{file.relative_to(ROOT)}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def _run(stage, command, kept, given):
    layer = kept / stage.key[:24] if kept else None
    if layer is not None and layer.exists():
        shutil.rmtree(stage.folder / "opt")
        shutil.copytree(layer, stage.folder / "opt", symlinks=True, copy_function=_linked)
        return
    more = [word for name, value in given.items() for word in ("--setenv", name, value)]
    arguments = [*stage.arguments(writable=True), *more, "sh", "-ec", command]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    if layer is not None:
        new = kept / f"new-{uuid.uuid4().hex[:8]}"
        shutil.copytree(stage.folder / "opt", new, symlinks=True, copy_function=_linked)
        try:
            new.rename(layer)
        except OSError:
            shutil.rmtree(new)
