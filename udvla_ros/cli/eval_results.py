"""``udvla eval results``: the page of results, from the JSON of the tables."""

from __future__ import annotations

import argparse
from pathlib import Path


def register(subparsers: argparse._SubParsersAction) -> None:
    """Add the command ``eval results``."""
    parser = subparsers.add_parser(
        "results",
        help="write a page with every table, its picture, answers, commands and hashes",
        description="Assemble a Markdown page from reports of `udvla eval table` and `udvla eval`. Pictures and a copy "
        "of each JSON go to a folder of the page's name beside it.",
    )
    parser.add_argument("reports", metavar="JSON", nargs="+", type=Path, help="in the order of the page")
    parser.add_argument(
        "--out", type=Path, default=Path("docs/results.md"), metavar="FILE", help="the page (default: %(default)s)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the page."""
    from udvla_ros.evaluation import report
    from udvla_ros.evaluation.tables import results_page

    for path in results_page.write(results_page.load(args.reports), args.out, report.command_line()):
        print(f"wrote {path}")
    return 0
