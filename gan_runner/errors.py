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
