"""`dra drain`: nothing new is given out, and the command ends when nobody uses the driver any more."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import click

from dra_driver.cli.failures import TimeIsUp
from dra_driver.cli.options import access_options
from dra_driver.cli.queries import OURS, connect
from dra_driver.kube.codec import slice_from_json
from dra_driver.kube.credentials import Access
from dra_driver.model.errors import NotFound
from dra_driver.model.kinds import RESOURCE_CLAIM, RESOURCE_SLICE
from dra_driver.model.names import DRIVER_NAME
from dra_driver.ports import JsonObject, KubeApi
from dra_driver.rules.draining import DRAIN_ANNOTATION, is_drained

_LOOK_S = 1.0
_UNDO_S = 0.3
_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")


class Duration(click.ParamType[float]):
    """Seconds, written as in Go and Kubernetes: 90s, 10m, 1h30m."""

    name = "duration"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """The seconds; a usage error for anything else."""
        if isinstance(value, float):
            return value
        match = _DURATION.fullmatch(str(value))
        if match is None or not any(match.groups()):
            self.fail(f"{value!r} is no duration; write it like 90s, 10m or 1h30m", param, ctx)
        hours, minutes, seconds = (int(part or 0) for part in match.groups())
        return float(3600 * hours + 60 * minutes + seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Which nodes: all if none is named."""

    nodes: frozenset[str]

    def has_slice(self, item: JsonObject) -> bool:
        """Whether the slice is of one of the nodes."""
        return not self.nodes or item["spec"].get("nodeName") in self.nodes

    def has_pool(self, name: str) -> bool:
        """Whether the pool is of one of the nodes: pools are called `<node>/<vendor>`."""
        return not self.nodes or name.rpartition("/")[0] in self.nodes


@click.command()
@click.argument("nodes", metavar="[NODE]...", nargs=-1)
@click.option("--all", "everywhere", is_flag=True, help="All nodes.")
@click.option("--undo", is_flag=True, help="Give devices out again, and wait for nothing.")
@click.option(
    "--timeout",
    "timeout_s",
    type=Duration(),
    default="10m",
    show_default=True,
    help="How long to wait for claims to end.",
)
@access_options
def drain(
    *, nodes: tuple[str, ...], everywhere: bool, undo: bool, timeout_s: float, access: Access
) -> None:
    """Stop giving out devices of these nodes, and wait until no claim has one.

    Nothing is evicted: pods that have devices keep them. Whoever still does is said, and said again when it changes. Claims
    with adminAccess count as well. The nodes stay drained, also after Ctrl-C or a timeout, until `--undo`.
    """
    if bool(nodes) == everywhere:
        raise click.UsageError("name the nodes to drain, or say --all")
    scope = Scope(nodes=frozenset(nodes))
    try:
        asyncio.run(_undo(access, scope) if undo else _drain(access, scope, timeout_s))
    except KeyboardInterrupt:
        click.echo(
            "stopped waiting; the nodes stay drained, `dra drain --undo` ends that", err=True
        )
        raise


async def _undo(access: Access, scope: Scope) -> None:
    async with connect(access) as api:
        while any(map(_is_marked, slices := await _slices(api, scope))):
            for item in filter(_is_marked, slices):
                await _mark(api, item, None)
            await asyncio.sleep(_UNDO_S)  # a plugin in the middle of writing may put it back once
    click.echo(f"{_nodes_of(slices)} may be used again")


async def _drain(access: Access, scope: Scope, timeout_s: float) -> None:
    since = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    deadline = time.monotonic() + timeout_s
    told: Sequence[str] = ()
    async with connect(access) as api:
        while True:
            slices = await _slices(api, scope)
            for item in slices:
                if not _is_marked(item):
                    await _mark(api, item, since)
            waits = [*_unanswered(slices), *_holders(await _claims(api), scope)]
            if not waits:
                break
            for line in (line for line in waits if line not in told):
                click.echo(f"waiting for {line}")
            told = waits
            if time.monotonic() > deadline:
                raise TimeIsUp(f"not drained after {timeout_s:g} s: {'; '.join(waits)}")
            await asyncio.sleep(_LOOK_S)
    click.echo(f"{_nodes_of(slices)} drained: no claim has a device")


async def _slices(api: KubeApi, scope: Scope) -> list[JsonObject]:
    """Our slices on these nodes. Raises NotFound for a node without any: most likely its name is wrong."""
    listing = await api.list(RESOURCE_SLICE, selectors={"fieldSelector": OURS})
    found = [item for item in listing.items if scope.has_slice(item)]
    silent = scope.nodes - {item["spec"]["nodeName"] for item in found}
    if silent:
        raise NotFound(f"node {min(silent)}: {DRIVER_NAME} publishes nothing there")
    return found


async def _claims(api: KubeApi) -> Sequence[JsonObject]:
    return (await api.list(RESOURCE_CLAIM)).items


async def _mark(api: KubeApi, item: JsonObject, since: str | None) -> None:
    patch = {"metadata": {"annotations": {DRAIN_ANNOTATION: since}}}
    try:
        await api.patch(RESOURCE_SLICE, item["metadata"]["name"], patch)
    except NotFound:
        return


def _is_marked(item: JsonObject) -> bool:
    return DRAIN_ANNOTATION in item["metadata"].get("annotations", {})


def _unanswered(slices: Iterable[JsonObject]) -> list[str]:
    """Nodes whose plugin has not yet done what the annotation asks for."""
    behind = {item["spec"]["nodeName"] for item in slices if not is_drained(slice_from_json(item))}
    return [f"the plugin of node {name} to taint its devices" for name in sorted(behind)]


def _holders(claims: Iterable[JsonObject], scope: Scope) -> list[str]:
    """Claims that have devices of ours, each with whom it is reserved for."""
    lines = []
    for claim in claims:
        allocation = claim.get("status", {}).get("allocation") or {}
        results = allocation.get("devices", {}).get("results") or ()
        if any(one["driver"] == DRIVER_NAME and scope.has_pool(one["pool"]) for one in results):
            metadata = claim["metadata"]
            users = [
                f"{one['resource']}/{one['name']}" for one in claim["status"].get("reservedFor", ())
            ]
            used = f", used by {', '.join(users)}" if users else ", which nobody uses"
            lines.append(f"claim {metadata['namespace']}/{metadata['name']}{used}")
    return sorted(lines)


def _nodes_of(slices: Iterable[JsonObject]) -> str:
    names = sorted({item["spec"]["nodeName"] for item in slices})
    return f"node {names[0]}" if len(names) == 1 else f"{len(names)} nodes"
