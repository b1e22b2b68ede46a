"""``python -m rlm_gateway add|remove NAME --file FILE``: the file of tenants."""

from __future__ import annotations

import argparse
import sys

from .tokens import add, remove


def main() -> int:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m rlm_gateway", description="Keep the file of tenants.")
    commands = parser.add_subparsers(dest="command", required=True)
    adding = commands.add_parser("add", help="add a tenant, or give one another token, and print the token")
    adding.add_argument("--kernels", type=int, metavar="N", help="kernels it may have at once")
    removing = commands.add_parser("remove", help="remove a tenant")
    for each in (adding, removing):
        each.add_argument("name", metavar="NAME")
        each.add_argument("--file", required=True, metavar="FILE")
    args = parser.parse_args()
    try:
        if args.command == "add":
            sys.stdout.write(add(args.file, args.name, args.kernels) + "\n")
        else:
            remove(args.file, args.name)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"rlm_gateway: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
