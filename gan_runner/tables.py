"""Tables for people, printed on standard output."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> "Table":
    """A table of plain cells: rich would take brackets in a path for markup."""
    from rich.table import Table
    from rich.text import Text

    filled = Table(*heads)
    for row in rows:
        filled.add_row(*map(Text, row))
    return filled


def show(table: "Table") -> None:
    """Prints a table on standard output, as wide as the terminal, or wide enough for any table."""
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else 240).print(table)
