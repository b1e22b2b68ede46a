"""``jupyter rlm``: one parser, one way to report errors, exit codes that tell the outcomes apart.

Arguments are checked before anything heavy is imported. Answers go to stdout, what is wrong to stderr in
one or two lines; a traceback appears only with ``RLM_DEBUG=1``. A further subcommand is one ``_add_...``
function below, which sets ``handler``: a function that takes the parsed arguments and returns the exit code.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from . import __version__
from .config import FIELDS
from .errors import InputError, RLMError

__all__ = ["EXIT_CODES", "main"]

EXIT_CODES = {
    "answered": 0,
    "exhausted": 3,
    "over_budget": 4,
    "timed_out": 5,
    "failed": 6,
    "cancelled": 130,
}
"""Exit code by the answer's status. Beside them: 1 an error in this program, 2 unusable input."""

_EXIT_CODES_HELP = """\
exit codes:
  0    answered
  2    unusable input: a wrong option, a missing file, no key
  3    out of turns: the answer printed is a best effort
  4    a budget was used up
  5    out of time
  6    failed: the model or the kernel gave up
  130  cancelled (Ctrl-C)
  1    an error in this program; RLM_DEBUG=1 shows where
"""

_EXAMPLES = """\
examples:
  jupyter rlm run --context report.txt "Which year had the highest revenue?"
  jupyter rlm run --context src --context 'docs/*.md' "Which options are not documented?"
  jupyter rlm run --context old=v1.txt --context new=v2.txt "Which clause changed?"
  journalctl | jupyter rlm run --context - --json "What failed first?"
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    try:
        args = _parser().parse_args(argv)
        handler: Callable[[argparse.Namespace], int] = args.handler
        code = handler(args)
        sys.stdout.flush()
    except InputError as error:
        return _report(error, str(error), error.hint, 2)
    except RLMError as error:
        return _report(error, str(error), error.hint, EXIT_CODES["failed"])
    except KeyboardInterrupt as error:
        return _report(error, "cancelled", "", EXIT_CODES["cancelled"])
    except BrokenPipeError:
        # The reader of stdout is gone; what Python would flush at exit has to go somewhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # noqa: BLE001  an edge: nothing is above this but the user
        return _report(
            error,
            f"internal error: {type(error).__name__}: {error}",
            "RLM_DEBUG=1 shows where; please report it",
            1,
        )
    return code


def _report(error: BaseException, message: str, hint: str, code: int) -> int:
    if os.environ.get("RLM_DEBUG", "").strip() not in {"", "0"}:
        traceback.print_exception(error)
    complain(message, hint)
    return code


# Hints of the package speak to who writes Python; here its arguments are options.
_OPTIONS = {
    "prices=": "--price",
    "model=": "--model",
    "base_url=": "--base-url",
    "api_key=": "OPENAI_API_KEY",
}


def complain(message: str, hint: str = "") -> None:
    """Write what is wrong, and what to do next, to stderr: a line each."""
    lines = [f"jupyter rlm: {' '.join(message.split())}"]
    for argument, option in _OPTIONS.items():
        hint = hint.replace(argument, option)
    if hint:
        lines.append(f"  {' '.join(hint.split())}")
    sys.stderr.write("\n".join(lines) + "\n")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        complain(message, f"{self.prog} --help lists what can be given")
        raise SystemExit(2)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="jupyter rlm",
        description="Ask a question over a context of any size. The root model works on it by code in a "
        "Jupyter kernel and by calls to further models.",
        epilog=_EXAMPLES + "\n" + _EXIT_CODES_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"rlm-kernel {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)
    _add_run(commands)
    _add_demo(commands)
    _add_export(commands)
    _add_doctor(commands)
    _add_bench(commands)
    _add_kernelspec(commands)
    _add_warmup(commands)
    _add_gateway(commands)
    _add_sessions(commands)
    return parser


def _add_run(commands: Any) -> None:
    parser = commands.add_parser(
        "run",
        help="answer a question over files, folders, globs or standard input",
        description="Answer a question over files, folders, globs or standard input.",
        epilog=_EXAMPLES + "\n" + _EXIT_CODES_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("question", nargs="?", help="what to find out")
    parser.add_argument(
        "--context",
        action="append",
        default=[],
        metavar="[NAME=]PATH",
        help="a file, a folder, a quoted glob, or - for standard input; may be repeated. With NAME= it is "
        "a context of its own under that name, else all of them together are `context`",
    )
    _add_run_options(parser)
    parser.add_argument(
        "--session",
        metavar="NAME",
        help="with --repl gateway: ask in this named session, which keeps kernel, variables, contexts and "
        "answers for the next call",
    )
    parser.add_argument(
        "--cite",
        action="store_true",
        help="have the answer come with quotes from the context, each checked to stand there word for word",
    )
    parser.set_defaults(handler=_run)


def _add_demo(commands: Any) -> None:
    parser = commands.add_parser(
        "demo",
        help="watch a run over the source of Python's standard library; needs no key",
        description="Watch a run over the source of Python's standard library. Without a key the models are "
        "scripted, behind a server on this machine; with OPENAI_API_KEY (and OPENAI_BASE_URL, --model) set "
        "the same run asks that endpoint.",
        epilog=_EXIT_CODES_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _add_run_options(parser)
    parser.set_defaults(handler=_demo)


def _add_export(commands: Any) -> None:
    parser = commands.add_parser(
        "export",
        help="write a recorded run as a notebook that runs again, as a page, as Markdown or as JSON lines",
        description="Write a recorded run in the form that the suffix of OUT names: .ipynb, .html, .md or "
        ".jsonl. A notebook runs again without a model.",
        allow_abbrev=False,
    )
    parser.add_argument("trajectory", metavar="TRAJECTORY", help="a file that `jupyter rlm run` has saved")
    parser.add_argument("out", metavar="OUT", help="the file to write")
    parser.add_argument(
        "--context",
        action="append",
        default=[],
        metavar="[NAME=]PATH",
        help="the context of the run, where it is not found by itself; as in `jupyter rlm run`",
    )
    parser.add_argument("--force", action="store_true", help="write over a file that is there")
    parser.set_defaults(handler=_export)


def _add_doctor(commands: Any) -> None:
    parser = commands.add_parser(
        "doctor",
        help="tell what works on this machine, and where each setting comes from",
        description="Tell what works on this machine, and where each setting comes from. Exit code 1 when "
        "something that is needed does not work.",
        allow_abbrev=False,
    )
    _add_setting(parser, "--model", "model", "NAME")
    _add_setting(parser, "--base-url", "base_url", "URL")
    parser.add_argument(
        "--endpoint", action="store_true", help="ask the endpoint for its models, too; costs nothing"
    )
    gateway = parser.add_argument_group("gateway", "its token is read from RLM_GATEWAY_TOKEN")
    gateway.add_argument(
        "--gateway",
        nargs="?",
        const="",
        metavar="URL",
        help="walk to a cell on this gateway (URL left away: RLM_GATEWAY_URL), and name the step that fails",
    )
    _add_setting(gateway, "--kernel-name", "kernel_name", "NAME")
    gateway.add_argument(
        "--gateway-insecure",
        action="store_true",
        default=None,
        help="allow plain http to another machine, where others can read the token and the contexts",
    )
    parser.set_defaults(handler=_doctor)


def _add_bench(commands: Any) -> None:
    benchmarks = commands.add_parser(
        "bench", help="measure this package on this machine", allow_abbrev=False
    ).add_subparsers(metavar="BENCHMARK", required=True, parser_class=_Parser)
    parser = benchmarks.add_parser(
        "panel",
        help="what a large run costs the page that shows it, and the notebook that keeps it",
        description="Measure the notebook's panel: messages and bytes to the page, the longest block of its "
        "main thread (needs Chromium and Playwright), and the size of what is saved. With --lab, measure "
        "what a person waits for in JupyterLab: the first sign, Stop, a notebook that is opened again.",
        allow_abbrev=False,
    )
    parser.add_argument("--calls", type=_count, default=1000, metavar="N", help="calls (default 1000)")
    parser.add_argument(
        "--seconds", type=_count, default=4, metavar="N", help="of text at a steady pace (default 4)"
    )
    parser.add_argument("--lab", action="store_true", help="measure waits in JupyterLab; one or two minutes")
    parser.add_argument("--repeat", type=_count, default=3, metavar="N", help="of --lab (default 3)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(handler=_bench_panel)
    parser = benchmarks.add_parser(
        "overhead",
        help="what a run costs beside the model, next to two references",
        description="Measure what a run costs beside the model, in one go with two references: raw aiohttp "
        "(A) and the openai client (O), each with exec. Needs no key; a scripted endpoint answers.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--rows", metavar="NAME,...", help="measure these only; an unknown name lists them all"
    )
    parser.add_argument(
        "--repl", metavar="NAME,...", help="compare these with the local kernel instead: sandbox, pyodide"
    )
    parser.add_argument("--repeat", type=_count, default=7, metavar="N", help="repetitions (default 7)")
    parser.add_argument("--quick", action="store_true", help="3 repetitions, and nothing that takes minutes")
    parser.add_argument("--json", action="store_true", help="print one JSON object with every sample")
    parser.set_defaults(handler=_bench)
    parser = benchmarks.add_parser(
        "gateway",
        help="what a gateway gives to many runs at once, and how fast a warm kernel is there",
        description="Measure runs over a gateway: runs a minute, what a turn costs beside the model, memory, "
        "errors; and the time to a spare kernel's first cell. Needs no key; a scripted endpoint answers.",
        allow_abbrev=False,
    )
    parser.add_argument("--sessions", default="1,4,16,64", metavar="N,...", help="default 1,4,16,64")
    parser.add_argument("--runs", type=_count, default=2, metavar="N", help="of each session (default 2)")
    parser.add_argument(
        "--gateway",
        nargs="?",
        const="",
        metavar="URL",
        help="use this one (URL left away: RLM_GATEWAY_URL) and not one started for it on this machine",
    )
    parser.add_argument(
        "--gateways",
        metavar="N,...",
        help="start so many here, a core of this machine for each, with --sessions on every one (Linux)",
    )
    parser.add_argument("--kernel-name", metavar="NAME", help="the kernelspec (default python3)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(handler=_bench_gateway)


def _add_kernelspec(commands: Any) -> None:
    from .kernels.rlm.install import add_command  # noqa: PLC0415  its module is the kernel's

    add_command(commands)


def _add_warmup(commands: Any) -> None:
    from .kernels.pyodide.warmup import add_command  # noqa: PLC0415  its module is the kernel's

    add_command(commands)


def _add_gateway(commands: Any) -> None:
    parser = commands.add_parser(
        "gateway",
        help="start a Kernel Gateway on this machine, with sandboxed kernels",
        description="Start a Kernel Gateway on this machine, until Ctrl-C, with the kernels of the names "
        "given and no others. The lines it prints set the variables of whoever is to use it.",
        allow_abbrev=False,
    )
    parser.add_argument("--port", type=_port, default=8888, metavar="N", help="default 8888; 0 for any")
    parser.add_argument(
        "--kernel",
        action="append",
        default=[],
        metavar="NAME",
        help="a kernelspec it has, the first its default one; may be repeated (default rlm-pyodide)",
    )
    parser.add_argument(
        "--ip", default="127.0.0.1", metavar="ADDRESS", help="default 127.0.0.1: this machine only"
    )
    parser.set_defaults(handler=_gateway)


def _add_sessions(commands: Any) -> None:
    parser = commands.add_parser(
        "sessions",
        help="list, show or end the named sessions, whose kernels outlive the process that asks",
        allow_abbrev=False,
    )
    group = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)
    for name, about in (
        ("list", "the named sessions, a line each"),
        ("show", "what one has: contexts, variables, questions"),
        ("stop", "end one: its kernel, and its record"),
    ):
        command = group.add_parser(name, help=about, description=f"{about.capitalize()}.", allow_abbrev=False)
        command.set_defaults(handler=_sessions, action=name)
        if name != "list":
            command.add_argument("name", metavar="NAME", help="its name")
        if name == "stop":
            command.add_argument(
                "--force", action="store_true", help="forget it also where its gateway can't be asked"
            )
        else:
            command.add_argument("--json", action="store_true", help="print JSON")


def _add_run_options(parser: argparse.ArgumentParser) -> None:
    models = parser.add_argument_group("models")
    root = models.add_mutually_exclusive_group()
    _add_setting(root, "--model", "model", "NAME")
    root.add_argument(
        "--gguf",
        dest="model",
        metavar="PATH",
        type=lambda path: f"gguf:{path}",
        help="a GGUF file as the root model, on this machine, without a key (--model gguf:PATH)",
    )
    _add_setting(models, "--sub-model", "sub_model", "NAME")
    _add_setting(models, "--base-url", "base_url", "URL")
    _add_setting(models, "--api", "api", "NAME")
    models.add_argument(
        "--price",
        action="append",
        default=[],
        type=_price,
        metavar="MODEL=IN/OUT[/CACHED]",
        help="a model's price in USD per million tokens; may be repeated, * and ? in MODEL match any text",
    )
    limits = parser.add_argument_group("limits")
    _add_setting(limits, "--depth", "max_depth", "N")
    _add_setting(limits, "--iterations", "max_iterations", "N")
    _add_setting(limits, "--timeout", "cell_timeout", "SECONDS")
    for cap in ("usd", "tokens", "calls", "seconds", "errors"):
        _add_setting(limits, f"--budget-{cap}", f"budget_{cap}", "N")
    _add_setting(limits, "--direct-below", "direct_below", "TOKENS")
    _add_setting(parser, "--repl", "repl", "NAME")
    gateway = parser.add_argument_group("gateway", "its token is read from RLM_GATEWAY_TOKEN")
    _add_setting(gateway, "--gateway-url", "gateway_url", "URL")
    _add_setting(gateway, "--kernel-name", "kernel_name", "NAME")
    gateway.add_argument(
        "--gateway-insecure",
        action="store_true",
        default=None,
        help="allow plain http to another machine, where others can read the token and the contexts",
    )
    output = parser.add_argument_group("output")
    saving = output.add_mutually_exclusive_group()
    saving.add_argument(
        "--save",
        metavar="FILE",
        help="write the trajectory there, or with suffix .ipynb, .html or .md the run in that form; default: "
        ".rlm/traces/TIME-ID.jsonl",
    )
    saving.add_argument("--no-save", action="store_true", help="write no trajectory")
    output.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    output.add_argument("--quiet", action="store_true", help="print the answer only")
    output.add_argument("--plain", action="store_true", help="plain lines, no live display, no colours")


def _add_setting(group: Any, flag: str, name: str, metavar: str) -> None:
    """Add the option for a setting; its value is checked here and used as `config.resolve` returns it."""
    field = next(each for each in FIELDS if each.name == name)
    default = f"{field.default:g}" if isinstance(field.default, int | float) else field.default
    note = [] if default is None else [f"default {default}"]

    def check(text: str) -> str:
        try:
            field.parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text!r} is not {error}") from None
        return text

    group.add_argument(
        flag,
        dest=name,
        type=check,
        metavar=metavar,
        help=f"{field.about.rstrip('.')} ({', '.join([*note, *field.variables])})",
    )


def _price(text: str) -> tuple[str, tuple[str, ...]]:
    model, equals, amounts = text.rpartition("=")
    parts = tuple(part.strip() for part in amounts.split("/"))
    try:
        valid = (
            bool(equals and model.strip())
            and len(parts) in {2, 3}
            and all(0 <= float(p) < 1e9 for p in parts)
        )
    except ValueError:
        valid = False
    if not valid:
        raise argparse.ArgumentTypeError(f"{text!r} is not MODEL=IN/OUT or MODEL=IN/OUT/CACHED in USD")
    return model.strip(), parts


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port")
    return int(text)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return int(text)


def _run(args: argparse.Namespace) -> int:
    if not (args.question or "").strip():
        raise InputError("no question given", hint='put it last: jupyter rlm run --context PATH "question"')
    attached = str(args.repl or os.environ.get("RLM_REPL", "")).startswith("attach:")
    if not (args.context or args.session or attached):
        raise InputError("no context given", hint="name a file, folder or glob by --context, or - for stdin")
    from .terminal import run  # noqa: PLC0415  heavy

    return EXIT_CODES[run(args)]


def _demo(args: argparse.Namespace) -> int:
    from .demo import demo  # noqa: PLC0415  heavy

    return EXIT_CODES[demo(args)]


def _export(args: argparse.Namespace) -> int:
    from .terminal import export  # noqa: PLC0415  heavy

    return export(args)


def _sessions(args: argparse.Namespace) -> int:
    from .repl.gateway import sessions  # noqa: PLC0415  heavy

    commands = {"list": sessions.show_all, "show": sessions.show_one, "stop": sessions.stop}
    return commands[args.action](args)


def _doctor(args: argparse.Namespace) -> int:
    from .doctor import doctor  # noqa: PLC0415  heavy

    return doctor(args)


def _bench(args: argparse.Namespace) -> int:
    from .bench.command import overhead  # noqa: PLC0415  heavy

    overhead(args)
    return 0


def _gateway(args: argparse.Namespace) -> int:
    from .loopback import serve  # noqa: PLC0415  heavy

    return serve(args)


def _bench_gateway(args: argparse.Namespace) -> int:
    from .bench.gateway import gateway  # noqa: PLC0415  heavy

    gateway(args)
    return 0


def _bench_panel(args: argparse.Namespace) -> int:
    if args.lab:
        from .bench.waits import waits  # noqa: PLC0415  heavy

        waits(args)
        return 0
    from .bench.panel import panel  # noqa: PLC0415  heavy

    panel(args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
