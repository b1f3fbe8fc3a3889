"""`dra version`: ours and the API server's."""

from __future__ import annotations

import asyncio
import importlib.metadata
from typing import Any

import click

from dra_driver.cli.options import access_options
from dra_driver.cli.printers import render_document
from dra_driver.cli.queries import connect
from dra_driver.kube.credentials import Access
from dra_driver.model.errors import DraError


@click.command()
@click.option("-o", "--output", type=click.Choice(["json", "yaml"]))
@click.option("--client", is_flag=True, help="Ask no API server.")
@access_options
def version(*, output: Any, client: bool, access: Access) -> None:
    """Show our version and the API server's.

    Without an answer from the server, ours is shown alone and the exit code is 1.
    """
    failure: DraError | None = None
    versions = {"clientVersion": {"gitVersion": f"v{importlib.metadata.version('dra-driver')}"}}
    if not client:
        try:
            server = asyncio.run(_server_version(access))
        except DraError as error:
            failure = error
        else:
            versions["serverVersion"] = {"gitVersion": server}
    if output:
        click.echo(render_document(versions, output))
    else:
        for key, value in versions.items():
            click.echo(f"{key.removesuffix('Version').capitalize()} Version: {value['gitVersion']}")
    if failure is not None:
        raise failure


async def _server_version(access: Access) -> str:
    async with connect(access) as api:
        return "v" + ".".join(map(str, await api.server_version()))
