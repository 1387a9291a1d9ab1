"""Names of directories that the runner chooses: in [A-Za-z0-9_.-], and never the same for two different things."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping

LONGEST = 120  # characters, so that a disk takes it and TensorBoard's list stays readable
_PLAIN = re.compile(r"-?[A-Za-z0-9.]+(?:[_-][A-Za-z0-9.]+)*")


def directory_name(text: str) -> str:
    """`text` as the name of a directory; ends in a hash where characters had to be replaced or left out."""
    return text if _is_name(text) else with_hash(text, text)


def job_name(swept: Mapping[str, str]) -> str:
    """What is swept, as the name of a job: `loss-hinge_seed-0` for {"loss": "hinge", "seed": "0"}.

    A key stands as its shortest end that no other key has. Two jobs that differ in a value as it was typed have
    different names: what cannot stand there as it is, or could be read in two ways, ends in a hash.
    """
    if not swept:
        return "job"
    labels = dict(zip(swept, shortest_ends(swept), strict=True))
    name = "_".join(f"{labels[key]}-{value}" for key, value in swept.items())
    could_be_read_otherwise = any(f"_{label}-" in value for label in labels.values() for value in swept.values())
    if _is_name(name) and all(map(_PLAIN.fullmatch, swept.values())) and not could_be_read_otherwise:
        return name
    return with_hash(name, json.dumps(dict(swept)))


def shortest_ends(keys: Iterable[str]) -> list[str]:
    """What to call each key: `lr` for optimizer.generator.lr; `generator.lr` where another key ends in `lr`, too."""
    parts = [re.sub(r"[^A-Za-z0-9_.-]+", ".", key).strip(".").split(".") for key in keys]
    ends = []
    for place, own in enumerate(parts):
        others = parts[:place] + parts[place + 1 :]
        length = next((n for n in range(1, len(own)) if all(other[-n:] != own[-n:] for other in others)), len(own))
        ends.append(".".join(own[-length:]))
    return ends


def _is_name(text: str) -> bool:
    return re.fullmatch(rf"[A-Za-z0-9_][A-Za-z0-9_.-]{{0,{LONGEST - 1}}}", text) is not None and text[-1] not in ".-"


def with_hash(text: str, meaning: str) -> str:
    """`text` as the name of a directory, ending in a hash of `meaning`."""
    digest = hashlib.blake2s(meaning.encode(errors="surrogatepass"), digest_size=4).hexdigest()
    legal = re.sub(r"(?:[^A-Za-z0-9_.]|-)+", "-", text).strip(".-")
    return f"{legal[: LONGEST - len(digest) - 1].rstrip('.-')}-{digest}".lstrip("-")
