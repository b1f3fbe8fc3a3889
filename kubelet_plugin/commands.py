"""The commands that look and change nothing: `plan` and `gather`. What they need is imported when they run."""

from __future__ import annotations

import json
from typing import BinaryIO, Literal

import click
import yaml

from dra_driver.config.layers import Resolved
from dra_driver.config.settings import PluginSettings
from dra_driver.config.strict_yaml import load_mapping
from dra_driver.model.claim import AllocatedClaim
from dra_driver.model.errors import ClaimError
from dra_driver.model.kinds import RESOURCE_CLAIM
from kubelet_plugin.options import takes_settings


@click.command()
@click.option(
    "-f",
    "--filename",
    type=click.File("rb"),
    required=True,
    help="The ResourceClaim, as `kubectl get resourceclaim NAME -o yaml` prints it; - is stdin.",
)
@click.option("-o", "--output", type=click.Choice(["text", "yaml", "json"]), default="text")
@takes_settings
def plan(
    *,
    resolved: Resolved[PluginSettings],
    filename: BinaryIO,
    output: Literal["text", "yaml", "json"],
) -> None:
    """Print what preparing a claim would do on this node; takes what `run` takes.

    Nothing is changed, and the plugin may run meanwhile. What the prepare would refuse, or wait for, is an error here.
    """
    from kubelet_plugin.rehearsal import as_json, as_text, rehearse  # noqa: PLC0415

    rehearsal = rehearse(resolved.settings, _read_claim(filename))
    if output == "text":
        click.echo(as_text(rehearsal))
    elif output == "json":
        click.echo(json.dumps(as_json(rehearsal), indent=2))
    else:
        click.echo(
            yaml.dump(as_json(rehearsal), Dumper=yaml.CSafeDumper, sort_keys=False), nl=False
        )


@click.command()
@takes_settings
def gather(*, resolved: Resolved[PluginSettings]) -> None:
    """Print this node's hardware as a machine profile, for `--machine` elsewhere; takes what `run` takes.

    Nothing is changed. What the profile cannot say, and what the GPUs suffer from, is on stderr.
    """
    from kubelet_plugin import gathering  # noqa: PLC0415

    gathered = gathering.gather(resolved.settings)
    for note in (*gathered.omissions, *gathered.ailments):
        click.echo(f"note: {note}", err=True)
    click.echo(gathered.profile, nl=False)


def _read_claim(file: BinaryIO) -> AllocatedClaim:
    from dra_driver.kube.codec import allocated_claim_from_json  # noqa: PLC0415

    try:
        document = load_mapping(file.read())
    except ValueError as error:
        raise ClaimError(f"claim file {file.name}: {error}") from error
    if document.get("kind") != RESOURCE_CLAIM.kind:
        raise ClaimError(
            f"claim file {file.name} holds kind {document.get('kind')!r}, not one ResourceClaim"
        )
    return allocated_claim_from_json(document)
