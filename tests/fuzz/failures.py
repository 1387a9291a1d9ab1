"""What a long run of the fuzzer comes to: the broken rules by kind, with the smallest case of each."""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.fuzz.case import Case


@dataclass
class Failure:
    """One kind of breaking a rule."""

    rule: str
    pattern: str  # the sentence without numbers, paths and quoted words
    example: str  # the whole sentence
    kind: str
    smallest: int
    about: str
    typed: str  # the command of the smallest case
    numbers: list[int] = field(default_factory=list)


class Failures:
    """All kinds found so far."""

    def __init__(self) -> None:
        self.kinds: dict[tuple[str, str], Failure] = {}

    def add(self, case: Case, found: Sequence[tuple[str, str]]) -> None:
        for rule, sentence in found:
            key = (rule, pattern_of(sentence))
            if key not in self.kinds:
                self.kinds[key] = Failure(*key, sentence, case.kind, case.number, case.about, case.as_typed())
            if case.number not in self.kinds[key].numbers:
                self.kinds[key].numbers.append(case.number)

    def table(self) -> str:
        """A paragraph for each kind, the most frequent first."""
        ordered = sorted(self.kinds.values(), key=lambda failure: (-len(failure.numbers), failure.smallest))
        parts = []
        for f in ordered:
            parts.append(
                f"{len(f.numbers)} × {f.rule}: {f.example[:300]}\n"
                f"    first: {f.kind} --only {f.smallest} ({f.about[:100]})\n    {f.typed[:400]}"
            )
        return "\n".join(parts)

    def write(self, path: Path) -> None:
        """Writes them as JSON lines."""
        path.write_text("".join(json.dumps(asdict(failure)) + "\n" for failure in self.kinds.values()))


def pattern_of(sentence: str) -> str:
    """A sentence without what differs from case to case."""
    text = re.sub(r"'[^']*'|\"[^\"]*\"", "'…'", sentence)
    text = re.sub(r"[\w.@~=-]*/[^\s,;:)]*", "/…", text)
    text = re.sub(r"(?:[+~]*[\w.]+=\S+\s*)+", "k=… ", text)
    return re.sub(r"0x[0-9a-f]+|[+-]?\d[\d.e+,-]*", "0", text)[:160]
