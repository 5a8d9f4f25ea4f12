"""Write docs/options.md: every command with its options, from the command line itself.

python docs/make_commands.py
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from evbiodist.cli import main

HEAD = """# Options of every command

What each command is for, in one table: [commands](commands.md). Exit status: 0 done, 1 some scans or fits failed and are
named, 2 the input is unusable.

This page is made by `python docs/make_commands.py` from the command line itself.
"""


def commands(group: click.Group, words: tuple[str, ...]) -> Iterator[tuple[str, click.Command]]:
    """Yield every command below a group with the words that are typed for it."""
    for name in sorted(group.commands):
        command = group.commands[name]
        yield " ".join((*words, name)), command
        if isinstance(command, click.Group):
            yield from commands(command, (*words, name))


def cell(text: str) -> str:
    """Return text as one cell of a table."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def option_row(option: click.Option, context: click.Context) -> str:
    """Return an option as a row: how it is typed, and what it is for with its default and range."""
    typed, said = option.get_help_record(context) or ("", "")
    return f"| `{cell(typed)}` | {cell(said)} |"


def section(typed: str, command: click.Command) -> list[str]:
    """Return the lines of one command."""
    context = click.Context(command, info_name=typed)
    usage = " ".join([typed, *command.collect_usage_pieces(context)])
    lines = ["", f"## {typed}", "", f"`{usage}`", "", cell(command.help or ""), ""]
    options = [p for p in command.params if isinstance(p, click.Option) and not p.hidden]
    if options:
        lines += ["| option | what it does |", "|---|---|", *(option_row(p, context) for p in options)]
    return lines


def page() -> str:
    """Return the page."""
    lines = [line for typed, command in commands(main, ("evbiodist",)) for line in section(typed, command)]
    return HEAD + "\n".join(lines) + "\n"


if __name__ == "__main__":
    Path(__file__).with_name("options.md").write_text(page(), encoding="utf-8")
