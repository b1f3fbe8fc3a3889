"""`dra drain`: nothing new is given out, and the command ends when nobody uses the driver any more."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import click

from dra_driver.cli.failures import TimeIsUp
from dra_driver.cli.options import access_options
from dra_driver.cli.queries import OURS, connect
from dra_driver.kube.codec import slice_from_json
from dra_driver.kube.credentials import Access
from dra_driver.model.errors import NotFound
from dra_driver.model.kinds import NODE, RESOURCE_CLAIM, RESOURCE_SLICE, Kind
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
    """Which nodes: all if none is named. `outlives_plugin`: the Node keeps the drain where slices come and go."""

    nodes: frozenset[str]
    outlives_plugin: bool

    def has_slice(self, item: JsonObject) -> bool:
        """Whether the slice is of one of the nodes."""
        return not self.nodes or item["spec"].get("nodeName") in self.nodes

    def has_node(self, item: JsonObject) -> bool:
        """Whether the Node is one of them."""
        return not self.nodes or item["metadata"]["name"] in self.nodes

    def has_pool(self, name: str) -> bool:
        """Whether the pool is of one of the nodes: pools are called `<node>/<vendor>`."""
        return not self.nodes or name.rpartition("/")[0] in self.nodes


@click.command()
@click.argument("nodes", metavar="[NODE]...", nargs=-1)
@click.option("--all", "everywhere", is_flag=True, help="All nodes.")
@click.option(
    "--for-removal",
    "mode",
    flag_value="removal",
    help="Before uninstalling: the drain ends with the plugin.",
)
@click.option(
    "--undo", "mode", flag_value="undo", help="Give devices out again, and wait for nothing."
)
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
    *,
    nodes: tuple[str, ...],
    everywhere: bool,
    mode: str | None,
    timeout_s: float,
    access: Access,
) -> None:
    """Stop giving out devices of these nodes, and wait until no claim has one.

    Nothing is evicted: pods that have devices keep them. Whoever still does is said, and said again when it changes. Claims
    with adminAccess count as well. The nodes stay drained, also after Ctrl-C or a timeout, until `--undo`.
    """
    if bool(nodes) == everywhere:
        raise click.UsageError("name the nodes to drain, or say --all")
    scope = Scope(nodes=frozenset(nodes), outlives_plugin=mode != "removal")
    try:
        asyncio.run(_undo(access, scope) if mode == "undo" else _drain(access, scope, timeout_s))
    except KeyboardInterrupt:
        click.echo(
            "stopped waiting; the nodes stay drained, `dra drain --undo` ends that", err=True
        )
        raise


async def _undo(access: Access, scope: Scope) -> None:
    async with connect(access) as api:
        nodes = [item for item in (await api.list(NODE)).items if scope.has_node(item)]
        for node in filter(_is_marked, nodes):
            await _mark(api, NODE, node["metadata"]["name"], None)
        while marked := [item for item in await _slices(api, scope) if _is_marked(item)]:
            for item in marked:
                await _mark(api, RESOURCE_SLICE, item["metadata"]["name"], None)
            await asyncio.sleep(_UNDO_S)  # a plugin in the middle of writing may put it back once
    click.echo(
        "all nodes may be used again"
        if not scope.nodes
        else f"{_named(scope.nodes)} may be used again"
    )


async def _drain(access: Access, scope: Scope, timeout_s: float) -> None:
    since = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    deadline = time.monotonic() + timeout_s
    told: Sequence[str] = ()
    async with connect(access) as api:
        while True:
            slices = await _slices(api, scope)
            await _mark_all(api, scope, slices, since)
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
    listing = await api.list(RESOURCE_SLICE, selectors={"fieldSelector": OURS})
    return [item for item in listing.items if scope.has_slice(item)]


async def _claims(api: KubeApi) -> Sequence[JsonObject]:
    return (await api.list(RESOURCE_CLAIM)).items


async def _mark_all(api: KubeApi, scope: Scope, slices: Sequence[JsonObject], since: str) -> None:
    """Annotate what is not yet. Raises NotFound for a named node without slices: most likely its name is wrong."""
    nodes = {item["spec"]["nodeName"] for item in slices}
    if silent := scope.nodes - nodes:
        raise NotFound(f"node {min(silent)}: {DRIVER_NAME} publishes nothing there")
    fresh = [item for item in slices if not _is_marked(item)]
    if scope.outlives_plugin:
        for node in sorted({item["spec"]["nodeName"] for item in fresh}):
            await _mark(api, NODE, node, since)
    for item in fresh:
        await _mark(api, RESOURCE_SLICE, item["metadata"]["name"], since)


async def _mark(api: KubeApi, kind: Kind, name: str, since: str | None) -> None:
    patch = {"metadata": {"annotations": {DRAIN_ANNOTATION: since}}}
    try:
        await api.patch(kind, name, patch)
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
    return _named({item["spec"]["nodeName"] for item in slices})


def _named(nodes: Collection[str]) -> str:
    return f"node {min(nodes)}" if len(nodes) == 1 else f"{len(nodes)} nodes"
