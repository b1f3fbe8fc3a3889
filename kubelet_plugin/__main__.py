"""`dra-kubelet-plugin`: runs the node plugin, and says how it would run.

Exit codes: 0 done, 1 failed (`error: ...` on stderr), 2 wrong usage.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from importlib.metadata import version as installed_version
from typing import Literal

import click

from dra_driver.config.layers import Resolved
from dra_driver.config.settings import PluginSettings
from dra_driver.model.errors import DraError
from dra_driver.observe import log
from kubelet_plugin import commands
from kubelet_plugin.options import describe, takes_settings


@click.group(context_settings={"max_content_width": 120})
def plugin() -> None:
    """The node's part of dra-driver: publishes its GPUs and prepares the claims that get them."""


@plugin.command()
@takes_settings
def run(*, resolved: Resolved[PluginSettings]) -> None:
    """Serve the kubelet until SIGTERM.

    Flags win over environment variables, these over the settings file, and that over the defaults.
    """
    gc.disable()  # next to nothing that a start makes is garbage; `app` enables it after the first look at the hardware
    from kubelet_plugin import app  # noqa: PLC0415  (the other commands need neither gRPC nor HTTP)

    settings = resolved.settings
    log.configure(settings.log_level, settings.log_format)
    asyncio.run(app.run(settings))


plugin.add_command(commands.plan)
plugin.add_command(commands.gather)


@plugin.group()
def config() -> None:
    """Look at the settings."""


@config.command()
@takes_settings
@click.option("-o", "--output", type=click.Choice(["yaml", "json"]), default="yaml")
def view(*, resolved: Resolved[PluginSettings], output: Literal["yaml", "json"]) -> None:
    """Print the settings in force and where each comes from; takes what `run` takes."""
    click.echo(describe(resolved, output))


@plugin.command()
def version() -> None:
    """Print the version."""
    click.echo(f"dra-kubelet-plugin {installed_version('dra-driver')}")


def main() -> None:
    """The entry point: what we raise on purpose becomes one line and exit code 1."""
    try:
        plugin(prog_name="dra-kubelet-plugin")
    except DraError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
