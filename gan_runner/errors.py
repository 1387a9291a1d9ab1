"""Mistakes of the user, each reported in one sentence."""

import difflib
import re
from collections.abc import Iterable

# What would break a message's one line, move a terminal's cursor, or cannot be written in UTF-8.
CONTROL_CHARACTERS = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class UserError(Exception):
    """A mistake of the user. The message names the key or file, what was found, what is allowed. Exit status 2."""

    def __str__(self) -> str:
        return CONTROL_CHARACTERS.sub(lambda found: repr(found[0])[1:-1], super().__str__())


def did_you_mean(found: str, allowed: Iterable[str]) -> str:
    """The end of an error message: the allowed spelling nearest to `found`, and all allowed ones."""
    options = sorted(map(str, allowed))
    near = nearest(found, options)
    hint = f"did you mean '{near}'? " if near else ""
    return f"{hint}(allowed: {', '.join(options) or 'none'})"


def nearest(found: str, allowed: Iterable[str]) -> str | None:
    """The allowed spelling nearest to `found`, if one is near."""
    return next(iter(difflib.get_close_matches(found, list(allowed), n=1, cutoff=0.5)), None)


def one_line(error: BaseException) -> str:
    """A library's message in one line, without the lines that OmegaConf adds for programmers.

    Of an error without a message it is that of its cause, else its type.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = "; ".join(line for line in lines if not line.startswith(("object_type", "reference_type")))
    if said or error.__cause__ is None:
        return said or type(error).__name__
    return one_line(error.__cause__)


def last_line(error: Exception) -> str:
    """The last line of a library's message: there, torch says which weights do not fit."""
    return (str(error).splitlines() or [""])[-1].strip()


def type_and_message(error: Exception) -> str:
    """The type of the error and its whole message, in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())
