"""The extension's own tests and checks, in TypeScript; and what its lock file may name."""

from __future__ import annotations

import json
import re

import labextension


def test_unit_tests_pass():
    with labextension.packages():
        out = labextension.npm("test")
    passed = re.search(r"Tests .*?(\d+) passed", re.sub(r"\x1b\[[0-9;]*m", "", out))
    assert passed is not None, out
    assert int(passed[1]) > 50


def test_types_style_and_format():
    with labextension.packages():
        labextension.npm("run", "lint")


def test_lock_file_names_no_host():
    lock = json.loads((labextension.SOURCES / "package-lock.json").read_text())
    entries = [each for path, each in lock["packages"].items() if path and not each.get("link")]
    assert len(entries) > 100
    assert not [each for each in entries if "resolved" in each]
    assert not [each for each in entries if not each.get("integrity", "").startswith("sha512-")]


def test_built_files_hold_the_panel_and_fetch_nothing():
    built = labextension.built()
    scripts = {path.name: path.read_text() for path in (built / "static").glob("*.js")}
    assert any("rlm-waterfall" in text for text in scripts.values())
    assert not [
        name for name, text in scripts.items() if re.search(r"""["'](https?:)?//(?!www\.w3\.org/)\w""", text)
    ]
    assert sum(path.stat().st_size for path in built.rglob("*") if path.is_file()) < 400_000
