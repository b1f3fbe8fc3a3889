"""`dra doctor`: is this cluster fit for the driver, and what is to be done where it is not."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import click

from dra_driver.cli.doctor.checks import CHECKS, Finding, Status
from dra_driver.cli.doctor.facts import Facts, gather
from dra_driver.cli.options import access_options
from dra_driver.cli.printers import render_document
from dra_driver.cli.queries import connect
from dra_driver.kube.credentials import Access


@click.command()
@click.option("-o", "--output", type=click.Choice(["json", "yaml"]))
@access_options
def doctor(*, output: Any, access: Access) -> None:
    """Check the cluster, and say what is wrong and how to mend it.

    Changes nothing. The exit code is 1 if any check failed; warnings leave it 0.
    """
    findings = list(examine(asyncio.run(_gather(access))))
    if output:
        rows = [
            {"check": name, "status": one.status.value, "message": one.message, "fix": one.fix}
            for name, one in findings
        ]
        click.echo(render_document({"findings": rows}, output))
    else:
        for name, one in findings:
            click.echo(f"{one.status:<5} {name}: {one.message}")
            if one.fix:
                click.echo(f"      fix: {one.fix}")
    if any(one.status is Status.FAIL for _, one in findings):
        raise click.exceptions.Exit(1)


def examine(facts: Facts) -> Iterator[tuple[str, Finding]]:
    """All findings, each with the name of its check; a fact that could not be had is one, too."""
    for name, check in CHECKS:
        if name in facts.unknown:
            fix = "ask for the right to read it, or run this as an administrator"
            yield name, Finding(status=Status.WARN, message=facts.unknown[name], fix=fix)
        for finding in check(facts):
            yield name, finding


async def _gather(access: Access) -> Facts:
    async with connect(access) as api:
        return await gather(api)
