"""Tables for people."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import rich.table

Table = tuple[Sequence[str], Sequence[Sequence[str]]]  # its heads and its rows


def draw(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> "rich.table.Table":
    """A table for a terminal. Cells are plain text: rich would take brackets in a path for markup."""
    from rich.table import Table
    from rich.text import Text

    table = Table(*heads)
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def show(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a table on standard output, as wide as the terminal, or wide enough for any table."""
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else 240).print(draw(heads, rows))
