"""Overrides of keys that hold a path or a name. What is typed behind their `=` is text, letter for letter.

In Hydra's grammar 1.10 and 2026_11_25 are numbers, and a `=`, `(` or leading `~` needs quotes. So these keys are read
here, and go to Hydra in quotes. Quotes around a whole value are taken off. `${…}` is interpolated, `\\${` is not.
"""

import random
import re
import shlex
import shutil
import sys
from pathlib import Path

from gan_runner.errors import UserError

PATHS = (
    "resume",
    "fork_from",
    "dataset.root",
    "hydra.run.dir",
    "hydra.sweep.dir",
    "evaluation.extractor",
    "run",
    "out",
)
NAMES = ("name", "label", *(f"hydra.launcher.{key}" for key in ("partition", "account", "qos", "constraint", "python")))
LISTS = ("runs", "trust", "interpolate_labels")  # in brackets they hold several
TEXT_KEYS = {*PATHS, *NAMES, *LISTS}
NEVER_NULL = ("name", "hydra.run.dir", "hydra.sweep.dir")  # here null is a name like others

_WORD = re.compile(r"(\+{0,2})([\w./]+)=(.*)", re.DOTALL)
_QUOTED = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\""""
_PART = re.compile(rf"(\s*(?:{_QUOTED})\s*|[^,]*)(,|\Z)", re.DOTALL)
_FUNCTION = re.compile(r"(choice|sort|shuffle|range|glob|interval|tag)\((.*)\)", re.DOTALL)
_NEEDS_QUOTES = re.compile(r"""[,'"()\[\]{}]|^\s|\s\Z|^null\Z|^\Z""")


def in_hydra_grammar(word: str, sweep: bool = False) -> str:
    """An override as it was typed, in Hydra's grammar; one of any other key is that already.

    In a sweep, commas and Hydra's functions give several texts. Raises `UserError` where one alone is allowed.
    """
    match = _WORD.fullmatch(word)
    if match is None or match[2] not in TEXT_KEYS:
        return word
    plus, key, value = match.groups()
    if value.strip() == "null" and key not in NEVER_NULL:
        return f"{plus}{key}=null"
    if key in LISTS and (inner := re.fullmatch(r"\s*\[(.*)\]\s*", value, re.DOTALL)):
        return f"{plus}{key}=[{_in_quotes(inner[1]) if inner[1].strip() else ''}]"
    sweep = sweep and not key.startswith("hydra.")
    if sweep and (function := _FUNCTION.fullmatch(value.strip())):
        name, arguments = function.groups()
        if name not in ("choice", "sort", "shuffle") or "(" in arguments:  # range(…), glob(…) and the like are Hydra's
            return word
        texts = [quoted(text) for text in (sorted if name == "sort" else list)(_split(arguments))]
        return f"{plus}{key}={','.join(random.sample(texts, len(texts)) if name == 'shuffle' else texts)}"
    if not sweep and len(parts := _split(value)) > 1:
        several = f"; several are {shlex.quote(f'{key}=[{value}]')}" if key in LISTS else ""
        raise UserError(
            f"{word}: has a comma, which separates the values of a sweep (-m); a text with a comma needs quotes of its "
            f"own: {shlex.quote(f'{key}={quoted(value)}')}{several}"
        ) from None
    return f"{plus}{key}={_in_quotes(value) if sweep else quoted(parts[0])}"


def as_typed(key: str, value: str) -> str:
    """A value in Hydra's grammar as one would type it: without quotes that it does not need."""
    if key.lstrip("+") not in TEXT_KEYS or len(parts := _split(value)) != 1:
        return value
    return _with_needed_quotes(parts[0])


def override(key: str, value: str | Path) -> str:
    """What to type in a shell so that the text key `key` has this value, whatever is in it."""
    text = literal(str(value))
    if isinstance(value, Path) and text.startswith("~"):  # nobody's home
        text = f"./{text}"
    return shlex.quote(f"{key}={_with_needed_quotes(text)}")


def command(name: str) -> str:
    """What to type in a shell to call `gan-NAME` of this installation, on the PATH or not."""
    script = Path(sys.executable).with_name(f"gan-{name}")
    if not script.exists():
        return f"{shlex.quote(sys.executable)} -m gan_runner.{name}"
    if shutil.which(script.name) == str(script):
        return script.name
    return shlex.quote(str(script.relative_to(Path.cwd()) if script.is_relative_to(Path.cwd()) else script))


def literal(text: str) -> str:
    """What OmegaConf reads as `text` itself, without interpolations."""
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", text)


def quoted(text: str) -> str:
    """`text` as a quoted value of Hydra's grammar, where backslashes count only before a quote."""
    return '"' + re.sub(r'(\\*)("|\Z)', lambda m: m[1] * 2 + ('\\"' if m[2] else ""), text) + '"'


def _with_needed_quotes(text: str) -> str:
    return quoted(text) if _NEEDS_QUOTES.search(text) else text


def _in_quotes(value: str) -> str:
    return ",".join(map(quoted, _split(value)))


def _split(value: str) -> list[str]:
    """The texts in `value` between commas that stand in no quotes. A single one keeps the spaces around it."""
    parts, end = [], 0
    while match := _PART.match(value, end):
        parts.append(match[1])
        end = match.end()
        if not match[2]:
            break
    texts = []
    for part in parts:
        if is_quoted := re.fullmatch(_QUOTED, part.strip(), re.DOTALL):
            mark = is_quoted[0][0]
            texts.append(re.sub(rf"\\+(?={mark}|\Z)", lambda m: m[0][1::2], is_quoted[0][1:-1]))
        else:
            texts.append(part.strip() if len(parts) > 1 else part)
    return texts
