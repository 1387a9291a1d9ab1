"""What a user did wrong, said in one sentence."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake of the user's: it names the key or file, what was found and what is allowed. Exit status 2."""


def did_you_mean(found: str, allowed: Iterable[str]) -> str:
    """The end of a sentence that lists `allowed` and points at the spelling nearest to `found`."""
    options = sorted(map(str, allowed))
    near = difflib.get_close_matches(found, options, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'? " if near else ""
    return f"{hint}(allowed: {', '.join(options) or 'none'})"


def one_line(error: BaseException) -> str:
    """The first sentence of a library's message, with what follows it folded into one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return "; ".join(line for line in lines if not line.startswith(("object_type", "reference_type")))


def last_line(error: Exception) -> str:
    """The last line of a library's message, which is where torch says what does not fit."""
    return (str(error).splitlines() or [""])[-1].strip()


def in_one_line(error: Exception) -> str:
    """The kind of the error and all of its message, in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())
