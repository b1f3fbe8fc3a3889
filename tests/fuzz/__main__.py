"""Fuzz what strangers write: `python -m tests.fuzz --inputs 1000000` on two processes, some ten minutes.

Inputs are numbered and follow from the seed alone. A failure names its target and number: `--only TARGET --first NUMBER
--inputs 1` runs that one again (an earlier one, where the plugin's state matters).
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from random import Random

import structlog

from tests.fuzz.calls import fuzz_calls
from tests.fuzz.claims import fuzz_claims
from tests.fuzz.files import fuzz_files
from tests.fuzz.parameters import fuzz_parameters

PROCESSES = 2
TARGETS: dict[str, tuple[Callable[[Iterable[Random]], int], float]] = {
    "parameters": (fuzz_parameters, 0.45),
    "claims": (fuzz_claims, 0.40),
    "files": (fuzz_files, 0.08),
    "calls": (fuzz_calls, 0.07),
}
"""Each with its part of the inputs."""


@dataclass(frozen=True, slots=True)
class Portion:
    """Inputs `first` to `first + count - 1` of one target."""

    target: str
    first: int
    count: int
    seed: int


class Failed(Exception):
    """A guarantee does not hold for that input."""


def run(portion: Portion) -> int:
    """Fuzz; returns how many inputs were understood. Raises Failed."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    logging.disable(logging.CRITICAL)
    last = portion.first

    def inputs() -> Iterator[Random]:
        nonlocal last
        for last in range(portion.first, portion.first + portion.count):
            yield Random(f"{portion.seed}:{portion.target}:{last}")

    fuzz, _ = TARGETS[portion.target]
    try:
        return fuzz(inputs())
    except Exception as error:
        raise Failed(f"{portion.target}, seed {portion.seed}, input {last}: {error!r}") from error
    finally:
        structlog.reset_defaults()
        logging.disable(logging.NOTSET)


def portions(count: int, seed: int, targets: Sequence[str]) -> Iterator[Portion]:
    """The inputs of these targets, a piece for each process."""
    total = sum(TARGETS[target][1] for target in targets)
    for target in targets:
        inputs = max(PROCESSES, round(count * TARGETS[target][1] / total))
        bounds = [inputs * part // PROCESSES for part in range(PROCESSES + 1)]
        for first, end in pairwise(bounds):
            yield Portion(target, first, end - first, seed)


def main() -> int:
    """Run, and say what came of it."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=TARGETS)
    parser.add_argument(
        "--first", type=int, help="with --only: start at this input, in one process"
    )
    options = parser.parse_args()
    if options.only and options.first is not None:
        work = [Portion(options.only, options.first, options.inputs, options.seed)]
    else:
        targets = [options.only] if options.only else list(TARGETS)
        work = list(portions(options.inputs, options.seed, targets))
    start = time.monotonic()
    with ProcessPoolExecutor(PROCESSES) as pool:
        for portion, understood in zip(work, pool.map(run, work), strict=True):
            end = portion.first + portion.count - 1
            print(f"{portion.target:10} {portion.first:>8}-{end:<8} {understood:>8} understood")  # noqa: T201
    inputs = sum(portion.count for portion in work)
    print(f"{inputs} inputs in {time.monotonic() - start:.0f} s, no crash")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
