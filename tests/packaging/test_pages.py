"""Each `udvla` line of the pages is one that its own parser takes, each link leads somewhere, each message is said."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from udvla_ros import graph
from udvla_ros.cli import main as cli

DOCS = Path(__file__).resolve().parents[2] / "docs"
PACKAGE = DOCS.parent / "udvla_ros"
PAGES = [DOCS / f"{name}.md" for name in ("install", "first_steps", "your_arm", "your_task")]


def lines_of(page: Path) -> list[str]:
    """Commands of a page's code blocks."""
    blocks = re.findall(r"```(?:bash)?\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.S)
    return [line.strip() for block in blocks for line in block.splitlines() if line.strip()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_are_taken_by_their_parsers(page):
    found = [words for line in lines_of(page) if (words := shlex.split(line, comments=True))[0] == "udvla"]
    assert found
    for _, *words in found:
        try:
            cli.build_parser(words[0]).parse_args(words)
        except SystemExit as end:
            assert end.code == 0, f"udvla {shlex.join(words)}"  # --help and --version end so


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_graphs_and_links_are_there(page):
    for line in lines_of(page):
        words = shlex.split(line, comments=True)
        if words[0] == "udvla_bringup":
            assert graph.resolve(words[1], dict(word.split(":=") for word in words[2:]))
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def test_messages_of_the_page_are_said_by_the_program():
    source = "\n".join(path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py"))
    joined = re.sub(r'"\s*\n\s*f?"', "", source)  # strings over several lines
    said = re.findall(r"^\| `([^`]+)` \|", (DOCS / "troubleshooting.md").read_text(encoding="utf-8"), flags=re.M)
    assert len(said) > 20 and not [words for words in said if words not in joined]


def test_commands_that_the_program_names_are_there():
    named = {word for path in PACKAGE.rglob("*.py") for word in re.findall(r"\budvla ([a-z]+)", path.read_text())}
    assert named and named <= set(cli.COMMANDS)
