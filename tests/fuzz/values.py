"""Right and wrong values of keys, worked out from the types and ranges in the schema and in signatures.

This is the fuzzer's own reading of them, not the product's: nothing of `validate` is used.
"""

import types
from collections.abc import Iterator
from random import Random
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from gan_runner.config.schema import Config

Bounds = dict[str, float]  # gt, ge, lt, le

# Keys that hold a path or a name: what is typed for them is text, whatever it looks like.
TEXT = (
    "name",
    "resume",
    "fork_from",
    "run",
    "runs",
    "out",
    "root",
    "extractor",
    "trust",
    "label",
    "interpolate_labels",
)
NOT_A_NUMBER = (
    "many", "''", "'2'", "[]", "[1]", "{}", "{a: 1}", "true", "nan", "???", "２", "1.2.3", "0x10", "1e", "--1",
)  # fmt: skip


def schema_keys(section: type[BaseModel] = Config, above: str = "") -> Iterator[tuple[str, Any, Bounds]]:
    """Every key of the schema, with its type and its bounds."""
    for name, field in section.model_fields.items():
        key, kind = f"{above}{name}", field.annotation
        inner = next((k for k in (kind, *get_args(kind)) if isinstance(k, type) and issubclass(k, BaseModel)), None)
        if inner is not None:
            yield from schema_keys(inner, f"{key}.")
        else:
            yield key, kind, bounds(field.metadata)


def bounds(metadata: Any) -> Bounds:
    """The bounds among the annotations of a type."""
    found: Bounds = {}
    for item in metadata:
        if isinstance(item, FieldInfo):
            found |= bounds(item.metadata)
        for name in ("gt", "ge", "lt", "le"):
            if getattr(item, name, None) is not None and not isinstance(item, FieldInfo):
                found[name] = float(getattr(item, name))
    return found


def branches(kind: Any, limits: Bounds) -> list[tuple[Any, Bounds]]:
    """The alternatives of a type, each with its bounds."""
    if get_origin(kind) is Annotated:
        inner, *metadata = get_args(kind)
        return branches(inner, limits | bounds(metadata))
    if get_origin(kind) in (Union, types.UnionType):
        return [branch for each in get_args(kind) for branch in branches(each, limits)]
    return [(kind, limits)]


def wrong(kind: Any, limits: Bounds, rng: Random) -> str | None:
    """A value, as it is typed, that the type does not allow; None where none is known."""
    alternatives = branches(kind, limits)
    if item := next((get_args(each)[0] for each, _ in alternatives if get_origin(each) is list), None):
        inner = wrong(item, {}, rng)
        return rng.choice(
            ["5", "true", "{a: 1}", "many words", "1.5", *([f"[{inner}]"] * 3 if inner is not None else [])]
        )
    allowed = [each for each, _ in alternatives]
    if not all(each in (int, float, bool, str, type(None)) or get_origin(each) is Literal for each in allowed):
        return None
    pool = ["[[]]", "{a: {b: 1}}"]
    if type(None) not in allowed:
        pool.append("null")
    if str not in allowed:
        pool += ["many words", "''", "'2'"]
    if not {int, float} & {*allowed}:
        pool += ["1", "0", "-1", "1.5"]
    if bool not in allowed:
        pool += ["true", "False"]
    if {int, float} & {*allowed} and str not in allowed:
        pool += NOT_A_NUMBER
    if int in allowed and float not in allowed:
        pool += ["1.5", "1e-3", "0.1", "inf", "-inf"]
    for each, within in alternatives:
        if each in (int, float):
            pool += beyond(within, each)
    return rng.choice(pool)


def beyond(within: Bounds, kind: type) -> list[str]:
    """Numbers outside the bounds."""
    least = 1 if kind is int else 0.25
    lower = [within["gt"], within["gt"] - least, within["gt"] - 1e9] if "gt" in within else []
    lower += [within["ge"] - least, within["ge"] - 1e9] if "ge" in within else []
    upper = [within["lt"], within["lt"] + least, within["lt"] + 1e9] if "lt" in within else []
    upper += [within["le"] + least, within["le"] + 1e9] if "le" in within else []
    return [typed(number, kind) for number in (*lower, *upper)]


def right(kind: Any, limits: Bounds, rng: Random) -> str | None:
    """A small value that the type allows, as it is typed; None where none is known."""
    each, within = rng.choice(branches(kind, limits))
    if each is type(None):
        return "null"
    if each is bool:
        return rng.choice(["true", "false", "True", "FALSE"])
    if get_origin(each) is Literal:
        return str(rng.choice(get_args(each)))
    if each not in (int, float):
        return None
    low = within.get("ge", within.get("gt", 0))
    high = min(within.get("le", within.get("lt", low + 9)), low + 9)
    if each is int:
        return typed(rng.randint(int(low) + ("gt" in within), int(high) - ("lt" in within)), int, rng)
    return typed(low + (high - low) * rng.choice([0.01, 0.1, 0.5, 0.9]), float, rng)


def typed(number: float, kind: type, rng: Random | None = None) -> str:
    """A number as people write it: 2, 2.0, 2e0, +2."""
    if kind is not int:
        return f"{number:.6g}" if rng is None else rng.choice([f"{number:.6g}", f"{number:.6e}", f"{number:.9f}"])
    whole = int(number)
    return str(whole) if rng is None else rng.choice([str(whole), str(whole), f"{whole}.0", f"{whole}e0", f"+{whole}"])
