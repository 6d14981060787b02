"""What is needed beside pytest: `python -m pytest_tta`.

Without a command it says what is installed, and whether it works.
`python -m pytest_tta merge a.jsonl b.jsonl` joins the files of a campaign.
"""

from __future__ import annotations

import argparse
import sys

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line says.

    Args:
        arguments: The words after the program's name; unless given, the process's own.

    Returns:
        The exit status: 0 if nothing was found, 1 if something was or if the self-check
        fails, 2 for a file that cannot be read.
    """
    parser = argparse.ArgumentParser(
        prog="python -m pytest_tta",
        description="Without a command: show the versions and the extras that are "
        "installed, and whether an hour of retries passes in virtual time.",
    )
    commands = parser.add_subparsers(dest="command")
    merging = commands.add_parser(
        "merge", help="Join the files that --tta-out has written on several machines."
    )
    merging.add_argument("files", nargs="+", metavar="FILE.jsonl")
    commands.add_parser("schema", help="Print the JSON schema of --tta-json.")
    asked = parser.parse_args(arguments)
    if asked.command == "schema":
        from pytest_tta.report.json_file import schema_text

        sys.stdout.write(schema_text())
        return 0
    if asked.command is None:
        return _report()
    # Here, so that --help and a wrong word need nothing else.
    from pytest_tta.explore.merge import merge_files

    try:
        return merge_files(asked.files)
    except (OSError, ValueError) as error:
        parser.exit(2, f"{parser.prog} merge: {error}\n")


def _report() -> int:
    """Print what is installed and whether it works."""
    from pytest_tta.selfcheck import report

    lines, is_well = report()
    sys.stdout.write("\n".join(lines) + "\n")
    return 0 if is_well else 1


if __name__ == "__main__":
    sys.exit(main())
