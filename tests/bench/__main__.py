"""The benchmark: `python -m tests.bench [B1a B7 ...] [--rounds 10] [--json FILE]`. See docs/dev/benchmark.md."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import click

from tests.bench.arena import Arena, two_kubelets
from tests.bench.bars import MEASUREMENTS, Measurement
from tests.bench.recipes import OURS, peers
from tests.bench.report import Line, table

BARS = tuple(dict.fromkeys(bar for one in MEASUREMENTS for bar in one.bars))


@click.command()
@click.argument("bars", nargs=-1, type=click.Choice(BARS))
@click.option("--rounds", default=10, show_default=True, type=click.IntRange(min=1))
@click.option(
    "--serial-claims",
    default=40,
    show_default=True,
    type=click.IntRange(min=1),
    help="Claims in a round where it is one at a time.",
)
@click.option(
    "--sync-ms",
    default=2.0,
    show_default=True,
    type=click.FloatRange(min=0),
    help="How long a sync takes in B1a to B1e and GetInfo; 0 for the disk of this machine, beside peers of the environment.",
)
@click.option(
    "--json", "file", type=click.Path(path_type=Path), help="Write the lines there too, as JSON."
)
def bench(
    bars: Sequence[str], rounds: int, serial_claims: int, sync_ms: float, file: Path | None
) -> None:
    """Measure ours beside its peers and print a table; all BARS, or those that are named.

    Exit code 1 where a bar does not hold.
    """
    wanted = [one for one in MEASUREMENTS if not bars or set(bars) & set(one.bars)]
    found = asyncio.run(
        _measure(wanted, rounds=rounds, serial_claims=serial_claims, sync_ms=sync_ms)
    )
    lines = [line for line in found if not bars or line.bar in bars]
    click.echo(table(lines))
    if file is not None:
        file.write_text(json.dumps([line.to_json() for line in lines], indent=2) + "\n")
    failed = [line for line in lines if line.holds is False]
    judged = [line for line in lines if line.holds is not None]
    click.echo(f"\n{len(judged) - len(failed)} of {len(judged)} bars hold")
    sys.exit(1 if failed else 0)


async def _measure(
    wanted: Sequence[Measurement], *, rounds: int, serial_claims: int, sync_ms: float
) -> list[Line]:
    async with two_kubelets() as (kubelet, onlooker):
        arena = Arena(
            rounds=rounds,
            serial_claims=serial_claims,
            sync_ms=sync_ms,
            ours=OURS,
            peers=peers(os.environ),
            kubelet=kubelet,
            onlooker=onlooker,
        )
        return [line for one in wanted for line in await _timed(one, arena)]


async def _timed(measurement: Measurement, arena: Arena) -> list[Line]:
    began_s = time.monotonic()
    click.echo(f"{', '.join(measurement.bars)}: {measurement.what} ...", nl=False, err=True)
    lines = await measurement.run(arena)
    click.echo(f" {time.monotonic() - began_s:.0f} s", err=True)
    return lines


if __name__ == "__main__":
    bench()
