"""`dra sandbox`: a cluster on this machine, without Kubernetes and without a GPU."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import click

import deviceclasses
from dra_driver.config.machine import load_machine
from dra_driver.model.errors import StartError
from dra_driver.model.names import is_dns_label
from dra_driver.observe import log
from dra_driver.sandbox.cluster import NodeSpec, running_cluster
from dra_driver.sandbox.demo import Demo
from dra_driver.sandbox.folder import (
    Running,
    is_alive,
    read_running,
    sandbox_folder,
    write_kubeconfig,
    write_running,
)
from dra_driver.sandbox.manifests import Manifest, read_manifests

DEFAULT_NODES = ("node-h100=8xh100-80", "node-mi300x=8xmi300x")
START_S = 60.0
STOP_S = 30.0

_folder = click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(".sandbox"),
    show_default=True,
    help="Everything the sandbox writes is below this folder, which it makes and removes.",
)


def _parse_nodes(
    _context: click.Context, _option: click.Parameter, values: Sequence[str]
) -> tuple[NodeSpec, ...]:
    specs: list[NodeSpec] = []
    for value in values:
        name, separator, machine = value.partition("=")
        if not separator:
            raise click.BadParameter(f"{value!r} is not NAME=MACHINE, such as {DEFAULT_NODES[0]}")
        if not is_dns_label(name):
            raise click.BadParameter(
                f"node name {name!r} is not a DNS label: lower-case letters, digits and dashes"
            )
        if name in {spec.name for spec in specs}:
            raise click.BadParameter(
                f"node {name!r} is there twice; give each node a name of its own"
            )
        load_machine(machine)  # refuses unknown and impossible machines before anything is started
        specs.append(NodeSpec(name=name, machine=machine))
    return tuple(specs)


_nodes = click.option(
    "--node",
    "nodes",
    multiple=True,
    default=DEFAULT_NODES,
    show_default=True,
    metavar="NAME=MACHINE",
    callback=_parse_nodes,
    help="A node and its machine profile: one that we ship, or a .yaml file. May be given several times.",
)


@click.group()
def sandbox() -> None:
    """Run a cluster here: API server, scheduler and kubelets are emulated, the driver is the real one."""


@sandbox.command()
@_folder
@_nodes
@click.option(
    "--demo",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("demo/quickstart"),
    show_default=True,
    help="Folder of manifests to play.",
)
def run(folder: Path, nodes: tuple[NodeSpec, ...], demo: Path) -> None:
    """Play a demo from start to end: apply, watch, show, delete, and prove that nothing is left."""
    manifests = read_manifests(demo)
    log.configure("error", "text")
    asyncio.run(_play(folder, nodes, manifests))


@sandbox.command()
@_folder
@_nodes
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    help="Port of the API server; 0: any free one.",
)
def up(folder: Path, nodes: tuple[NodeSpec, ...], port: int) -> None:
    """Start a sandbox in the background and say how to talk to it."""
    running = read_running(folder)
    if running is not None and is_alive(running):
        raise StartError(
            f"a sandbox runs in {folder} already: {running.server}; end it with `dra sandbox down --dir {folder}`"
        )
    flags = [text for node in nodes for text in ("--node", f"{node.name}={node.machine}")]
    command = [sys.executable, "-m", "dra_driver.cli.main", "sandbox", "serve", *flags]
    process = subprocess.Popen(  # noqa: S603 (our own program)
        [*command, "--dir", str(folder), "--port", str(port)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        server = _wait_for_server(folder, process)
    except BaseException:  # Ctrl-C, too: nobody would know of what goes on in the background
        process.terminate()
        process.wait(STOP_S)
        raise
    click.echo(
        f"sandbox is up: {server}\n\n  export KUBECONFIG={(folder / 'kubeconfig').resolve()}"
    )
    click.echo("  kubectl get resourceslices\n  dra get devices")
    click.echo(f"\nend it with: dra sandbox down --dir {folder}")


@sandbox.command(hidden=True)
@_folder
@_nodes
@click.option("--port", type=int, default=0)
def serve(folder: Path, nodes: tuple[NodeSpec, ...], port: int) -> None:
    """Be the sandbox that `up` starts, until SIGTERM."""
    log.configure("info", "text")
    asyncio.run(_serve(folder, nodes, port))


@sandbox.command()
@_folder
def down(folder: Path) -> None:
    """End the sandbox that `up` started, and remove its folder."""
    running = read_running(folder)
    if running is None or not is_alive(running):
        click.echo(f"No sandbox runs in {folder}.", err=True)
        return
    os.kill(running.pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_S
    while is_alive(running):
        if time.monotonic() > deadline:
            raise StartError(
                f"sandbox process {running.pid} does not end; look at {folder / 'sandbox.log'}"
            )
        time.sleep(0.05)
    click.echo(f"sandbox in {folder} is down")


async def _play(folder: Path, nodes: Sequence[NodeSpec], manifests: Sequence[Manifest]) -> None:
    click.echo(
        f"Starting {len(nodes)} simulated nodes: no cluster, no GPU, our real plugin on each"
    )
    with sandbox_folder(folder) as root:
        async with running_cluster(root, nodes, deviceclasses.load_all()) as cluster:
            click.echo(f"API server {cluster.server} (kubectl works, too)")
            await Demo(cluster, manifests, click.echo).tell()
    click.echo("\nThe sandbox is gone. Done.")


async def _serve(folder: Path, nodes: Sequence[NodeSpec], port: int) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    with sandbox_folder(folder) as root, (root / "sandbox.log").open("ab") as output:
        async with running_cluster(root, nodes, deviceclasses.load_all(), port=port) as cluster:
            write_kubeconfig(root / "kubeconfig", cluster.server)
            os.dup2(
                output.fileno(), sys.stderr.fileno()
            )  # nobody reads the pipe of `up` from here on
            write_running(root, Running(pid=os.getpid(), server=cluster.server))
            await stop.wait()


def _wait_for_server(folder: Path, process: subprocess.Popen[bytes]) -> str:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        running = read_running(folder)
        if running is not None and running.pid == process.pid and running.server:
            return running.server
        if process.poll() is not None:
            assert process.stderr is not None
            said = process.stderr.read().decode(errors="replace").strip().removeprefix("error: ")
            raise StartError(
                said.splitlines()[0]
                if said
                else f"the sandbox ended with code {process.returncode}"
            )
        time.sleep(0.05)
    raise StartError(
        f"the sandbox was not ready within {START_S:g} s; try again, or look at {folder / 'sandbox.log'}"
    )
