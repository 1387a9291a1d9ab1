"""`python -m tests.fuzz commands --from 0 --count 10000`, or `trees`; `--only N` runs one case and keeps its place."""

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.fuzz import commands, rules, running, tree_rules, trees
from tests.fuzz.case import Case, Ended
from tests.fuzz.failures import Failures
from tests.fuzz.world import Inputs

EVERY = 30.0  # seconds between two lines of progress


def main() -> int:
    """Runs the cases; the exit status is 1 if any breaks a rule."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("kind", choices=["commands", "trees"])
    parser.add_argument("--from", dest="first", type=int, default=0, help="the number of the first case")
    parser.add_argument("--count", type=int, default=100, help="how many")
    parser.add_argument("--only", type=int, help="this case alone; its directory stays, and what it printed is shown")
    parser.add_argument("--show", action="store_true", help="print the commands, run none")
    parser.add_argument("--limit", type=float, default=running.LIMIT, help="seconds that a case may take")
    parser.add_argument("--failures", type=Path, help="a file for all failures, as JSON lines")
    arguments = parser.parse_args()
    numbers = range(arguments.first, arguments.first + arguments.count)
    if arguments.only is not None:
        numbers = range(arguments.only, arguments.only + 1)
    module = {"commands": commands, "trees": trees}[arguments.kind]
    if arguments.show:
        for number in numbers:
            case = module.make(number)
            print(f"# {number}: {case.about}\n{case.as_typed()}")
        return 0
    scratch = Path(tempfile.mkdtemp(prefix="fuzz"))  # removed below, and by no fork
    try:
        return _run(module.make, numbers, scratch, arguments)
    finally:
        if arguments.only is None:
            running.remove(scratch)


def _run(make, numbers: range, scratch: Path, arguments: argparse.Namespace) -> int:
    os.environ["MPLCONFIGDIR"] = str(scratch / "matplotlib")
    running.warm_up()
    inputs = Inputs(scratch / "inputs")
    inputs.make(running.train)
    failures, statuses, begun = Failures(), Counter[object](), time.monotonic()
    said = begun
    for done, number in enumerate(numbers, 1):
        case, place = make(number), scratch / str(number)
        ended, found = check(case, inputs, place, arguments.limit)
        failures.add(case, found)
        statuses[ended.status] += 1
        if arguments.only is not None:
            _show(case, ended, found, place)
            break
        running.remove(place)
        if time.monotonic() - said > EVERY:
            said = time.monotonic()
            print(f"{done}/{len(numbers)} cases, {len(failures.kinds)} kinds of failures", file=sys.stderr, flush=True)
            if arguments.failures is not None:
                failures.write(arguments.failures)
    if arguments.failures is not None:
        failures.write(arguments.failures)
    if arguments.only is None:
        print(failures.table())
    by_status = ", ".join(f"{count} × {status}" for status, count in sorted(statuses.items(), key=str))
    seconds, kinds = time.monotonic() - begun, len(failures.kinds)
    print(f"{len(numbers)} cases in {seconds:.0f} s, {kinds} kinds of failures ({by_status})")
    return 1 if failures.kinds else 0


def check(case: Case, inputs: Inputs, place: Path, limit: float = running.LIMIT) -> tuple[Ended, list[tuple[str, str]]]:
    """Runs a case in `place`, and applies the rules."""
    ended = running.run(case, inputs, place, limit)
    return ended, [
        (rule.__name__, sentence) for rule in (*rules.RULES, *tree_rules.RULES) for sentence in rule(case, ended, place)
    ]


def _show(case: Case, ended: Ended, found: list[tuple[str, str]], place: Path) -> None:
    settings = f"HOME={place}/home GAN_RUNNER_CACHE={place}/cache TMPDIR={place}/tmp"
    print(f"# {case.about}\ncd {place / 'work'}; {settings} {case.as_typed()}".replace("@ROOT@", str(place)))
    print(f"status {ended.status} after {ended.seconds:.1f} s, right: {sorted(case.expect)}")
    print("stdout:", ended.out, "stderr:", ended.err, sep="\n")
    print("new:", *sorted(ended.after.keys() - ended.before.keys()), sep="\n  ")
    print("broken:", *(f"{rule}: {sentence}" for rule, sentence in found), sep="\n  ")


if __name__ == "__main__":
    sys.exit(main())
