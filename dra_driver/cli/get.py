"""`dra get`: devices and who uses them, claims, slices and nodes, in kubectl's manner."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TypeVar

import click

from dra_driver.cli.failures import describe
from dra_driver.cli.options import access_options, label_option, layout_options, namespace_options
from dra_driver.cli.printers import Layout, View, render
from dra_driver.cli.queries import OURS, Found, Query, connect, find_devices, find_objects
from dra_driver.cli.views import NodeRow, claims_view, devices_view, nodes_view, slices_view
from dra_driver.kube.credentials import Access
from dra_driver.model.kinds import NODE, RESOURCE_CLAIM, RESOURCE_SLICE
from dra_driver.ports import JsonObject
from dra_driver.rules.usage import DeviceUse, GpuCount, count_gpus

T = TypeVar("T")


class Nouns(click.Group):
    """Takes the singular for the plural, as kubectl does."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, or of its plural."""
        return super().get_command(ctx, cmd_name) or super().get_command(ctx, f"{cmd_name}s")


@click.group(cls=Nouns)
def get() -> None:
    """Show devices, claims, slices or nodes."""


@get.command()
@layout_options
@access_options
def devices(*, names: tuple[str, ...], layout: Layout, access: Access) -> None:
    """Show our devices on all nodes, and who uses them.

    NAME is a device's name, or POOL/NAME for the one of a single node. STATE is allocated; tainted (no claim without a
    toleration gets it); blocked (other devices hold parts of the same GPU); or free. -o json and yaml print a DeviceList.
    """
    _show(devices_view(), asyncio.run(_find_devices(access, names)), layout)


@get.command()
@layout_options
@namespace_options
@label_option
@access_options
def claims(
    *,
    names: tuple[str, ...],
    layout: Layout,
    access: Access,
    namespace: str | None,
    labels: str | None,
) -> None:
    """Show ResourceClaims, and the devices that they hold."""
    if names and namespace is None:
        raise click.UsageError("a claim is named within one namespace: use -n, not -A")
    query = _query(Query(kind=RESOURCE_CLAIM, names=names, namespace=namespace, labels=labels))
    view = claims_view(datetime.now(UTC), with_namespace=namespace is None)
    _show(view, asyncio.run(_find_objects(access, query)), layout)


@get.command()
@layout_options
@label_option
@access_options
def slices(*, names: tuple[str, ...], layout: Layout, access: Access, labels: str | None) -> None:
    """Show the ResourceSlices of our driver."""
    query = _query(Query(kind=RESOURCE_SLICE, names=names, labels=labels, fields=OURS))
    found = asyncio.run(_find_objects(access, query))
    _show(slices_view(datetime.now(UTC)), found, layout)


@get.command()
@layout_options
@label_option
@access_options
def nodes(*, names: tuple[str, ...], layout: Layout, access: Access, labels: str | None) -> None:
    """Show nodes, how many GPUs they have, and on how many of these at least a part is in use."""
    query = _query(Query(kind=NODE, names=names, labels=labels))
    _show(nodes_view(datetime.now(UTC)), asyncio.run(_find_nodes(access, query)), layout)


def _query(query: Query) -> Query:
    """The query, or wrong usage if it says two things at once."""
    if query.names and query.labels:
        raise click.UsageError("names and -l exclude each other: use one of them")
    return query


async def _find_objects(access: Access, query: Query) -> Found[JsonObject]:
    async with connect(access) as api:
        return await find_objects(api, query)


async def _find_devices(access: Access, names: tuple[str, ...]) -> Found[DeviceUse]:
    async with connect(access) as api:
        return await find_devices(api, names)


async def _find_nodes(access: Access, query: Query) -> Found[NodeRow]:
    async with connect(access) as api:
        found = await find_objects(api, query)
        gpus = count_gpus((await find_devices(api)).rows)
    rows = [
        NodeRow(node=node, gpus=gpus.get(node["metadata"]["name"], GpuCount()))
        for node in found.rows
    ]
    return Found(rows=rows, failures=found.failures)


def _show(view: View[T], found: Found[T], layout: Layout) -> None:
    """Print the rows; then, on stderr, the failures, and exit with 1 if there are any."""
    text = render(view, found.rows, layout)
    if found.rows or (text and not found.failures):
        click.echo(text)
    elif not found.failures:
        click.echo("No resources found.", err=True)
    for failure in found.failures:
        click.echo(describe(failure), err=True)
    if found.failures:
        raise click.exceptions.Exit(1)
