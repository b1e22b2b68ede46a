"""The kernelspecs: `rlm` comes with the wheel, and ``jupyter rlm kernelspec install`` writes any anywhere."""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from ...errors import InputError

__all__ = ["NAME", "add_command", "install", "spec"]

NAME = "rlm"
_SPEC = Path(__file__).parent / "spec"
SPECS = {
    NAME if path.parent == _SPEC else f"{NAME}-{path.parents[1].name}": path.parent
    for path in sorted(Path(__file__).parents[1].glob("*/spec/kernel.json"))
}
"""The folders of the kernels that this package has, by the kernel's name."""
_KEY = re.compile(r"key|token|secret|passw|credential", re.IGNORECASE)


def spec(kernel: str = NAME, *, display_name: str = "", env: dict[str, str] | None = None) -> dict[str, Any]:
    """Return the kernelspec for this Python."""
    found: dict[str, Any] = json.loads((SPECS[kernel] / "kernel.json").read_text(encoding="utf-8"))
    found["argv"][0] = sys.executable
    if display_name:
        found["display_name"] = display_name
    if env:
        found["env"] = env
    from ipykernel.kernelspec import get_kernel_dict  # noqa: PLC0415  on use

    # What transport this ipykernel can encrypt, it says itself.
    encryption = get_kernel_dict().get("metadata", {}).get("supported_encryption")
    if encryption:
        found["metadata"]["supported_encryption"] = encryption
    return found


def install(
    kernel: str = NAME,
    *,
    user: bool = False,
    prefix: str | None = None,
    name: str = "",
    display_name: str = "",
    env: dict[str, str] | None = None,
) -> str:
    """Install a kernelspec of `SPECS` for this user, under ``prefix``, or for all; return where it is.

    Raises:
        InputError: a name it can't have, an environment with a key in it, or a folder that can't be written.
    """
    for variable in env or {}:
        if _KEY.search(variable):
            raise InputError(
                f"--env {variable} would put what looks like a key into a file that others read",
                hint="set it where Jupyter is started, or type it: %rlm login",
            )
    from jupyter_client.kernelspec import KernelSpecManager  # noqa: PLC0415  on use

    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "spec")
        shutil.copytree(SPECS[kernel], source)
        content = json.dumps(spec(kernel, display_name=display_name, env=env), indent=1)
        (source / "kernel.json").write_text(content + "\n", encoding="utf-8")
        try:
            return str(
                KernelSpecManager().install_kernel_spec(
                    str(source), kernel_name=name or kernel, user=user, prefix=prefix
                )
            )
        except ValueError as error:
            raise InputError(f"{name or kernel!r} can't be a kernel's name", hint=str(error)) from None
        except OSError as error:
            raise InputError(
                f"the kernelspec can't be written: {error.strerror} ({error.filename})",
                hint="--user or --sys-prefix installs it where you may write",
            ) from None


def add_command(commands: Any) -> None:
    """Add ``kernelspec install`` to the command line."""
    parser = commands.add_parser(
        "kernelspec", help="install a kernel: Python with %%rlm, or sandboxed", allow_abbrev=False
    )
    inner = parser.add_subparsers(metavar="COMMAND", required=True).add_parser(
        "install",
        help="write its kernelspec",
        description="Write the kernelspec of one of this package's kernels for this Python.",
        allow_abbrev=False,
    )
    inner.add_argument("kernel", nargs="?", choices=SPECS, default=NAME, help=f"which one (default {NAME})")
    where = inner.add_mutually_exclusive_group()
    where.add_argument("--user", action="store_true", help="for this user")
    where.add_argument("--sys-prefix", action="store_true", help="in this Python's environment")
    where.add_argument("--prefix", metavar="PATH", help="under another prefix")
    inner.add_argument("--name", default="", help="its name (default: the kernel's)")
    inner.add_argument("--display-name", default="", metavar="NAME", help="what menus call it")
    inner.add_argument(
        "--env",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="a variable of its environment, no key; may be repeated",
    )
    inner.set_defaults(handler=_install)


def _install(args: argparse.Namespace) -> int:
    where = install(
        args.kernel,
        user=args.user,
        prefix=sys.prefix if args.sys_prefix else args.prefix,
        name=args.name,
        display_name=args.display_name,
        env=dict(args.env),
    )
    sys.stdout.write(f"{args.name or args.kernel}: {where}\n")
    return 0
