"""Pages as programs: their blocks in order, Python in one session, commands in the same folder."""

from __future__ import annotations

import contextlib
import doctest
import io
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import click
from click.testing import CliRunner

FENCE = re.compile(r"^(?P<indent> *)```(?P<head>[^\n`]*)\n(?P<body>.*?)^(?P=indent)```$", re.M | re.S)
SAME = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, the file it is to be saved as (title of the fence), its text."""

    language: str
    title: str
    text: str

    @property
    def first(self) -> str:
        return self.text.lstrip().partition("\n")[0]


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page in order."""
    found = []
    for match in FENCE.finditer(page.read_text(encoding="utf-8")):
        language = match["head"].split()[0] if match["head"].strip() else ""
        title = re.search(r'title="([^"]+)"', match["head"])
        found.append(Block(language, title[1] if title else "", match["body"]))
    return found


def commands(text: str) -> list[list[str]]:
    """Return the commands of a bash block as lists of words, without comments and what stands in a here document."""
    text = re.sub(r"<<'(\w+)'\n.*?^\1$", "", text, flags=re.M | re.S).replace("\\\n", " ")
    words: list[list[str]] = []
    for line in text.splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="&;")
        lexer.whitespace_split = True
        words.append([])
        for word in lexer:
            if set(word) <= {"&", ";"}:
                words.append([])
            else:
                words[-1].append(word)
    return [w for w in words if w]


def parse(words: list[str]) -> None:
    """Check that a command and its options exist, without running it.

    Raises
    ------
    click.UsageError : an unknown command or option, or a wrong number of arguments.
    """
    from evbiodist.cli import main

    command: click.Command = main
    context = click.Context(main, info_name="evbiodist")
    rest = words[1:]
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        name, found, rest = command.resolve_command(context, rest)
        assert found is not None
        command, context = found, click.Context(found, parent=context, info_name=name)
    if not isinstance(command, click.Group):
        command.make_parser(context).parse_args(list(rest))


def run_command(words: list[str]) -> str:
    """Run `evbiodist ...` in this process and return what it prints.

    Raises
    ------
    AssertionError : another program, or an exit status that is not 0.
    """
    from evbiodist.cli import main

    assert words[0] == "evbiodist", f"'{words[0]}' cannot run in a test; list the block with a reason in NOT_RUN"
    done = CliRunner().invoke(main, words[1:], catch_exceptions=False)
    assert done.exit_code == 0, (words, done.output)
    return done.output


def run_console(text: str) -> None:
    """Run the commands after `$` and compare what they print; a line `...` stands for any lines.

    Raises
    ------
    AssertionError : with both texts.
    """
    for part in re.split(r"^\$ ", text, flags=re.M)[1:]:
        typed, _, wanted = part.partition("\n")
        got = "".join(run_command(words) for words in commands(typed))
        assert doctest.OutputChecker().check_output(wanted, got, SAME), f"$ {typed}\n{got}"


def run_page(page: Path, skipped: set[str]) -> None:
    """Run every block of a page in the current folder, apart from those whose first line is in `skipped`."""
    session: dict[str, object] = {"__name__": "docs"}
    printed, waiting = "", False
    for number, block in enumerate(blocks(page), 1):
        if block.title and block.language != "text":
            Path(block.title).write_text(block.text, encoding="utf-8")
        elif block.first in skipped:
            continue
        elif block.language == "python":
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                exec(compile(block.text, f"{page.name}, block {number}", "exec"), session)  # noqa: S102  our own pages
            printed, waiting = out.getvalue(), True
            continue
        elif block.language == "text" and block.title == "prints":
            assert waiting, f"{page.name}, block {number}: no Python block just before what it prints"
            assert doctest.OutputChecker().check_output(block.text, printed, SAME), f"{page.name}:\n{printed}"
        elif block.language == "bash":
            for words in commands(block.text):
                run_command(words)
        elif block.language == "console":
            run_console(block.text)
        waiting = False
