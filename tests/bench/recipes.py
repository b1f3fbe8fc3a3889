"""Which drivers compete and how each is started.

Peers come by environment: `DRA_BENCH_PEER_EXAMPLE="PROGRAM --flag={data} ..."`. Placeholders: `{server}` (URL of the API server),
`{kubeconfig}` (a file for the same), `{node}`, and the folders `{data}` (the plugin's), `{registry}`, `{cdi}` and `{folder}` (all of them).
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from dra_driver.ports import JsonObject
from tests.bench import report
from tests.bench.objects import NODE_NAME

PEER = "DRA_BENCH_PEER_"
_PYTHON = f"{sys.executable} -m "
SHARED = "shared"
WHOLE = "whole GPU"
PARTITION = "1g.10gb"

_PLUGIN = (
    "run --node-name {node} --server {server} --data-dir {data} --registry-dir {registry} --cdi-dir {cdi}"
    " --simulation-dir {folder}/hardware --machine 8xh100-80"
)
_KUBECONFIG = """\
apiVersion: v1
kind: Config
current-context: bench
clusters: [{{name: bench, cluster: {{server: "{server}"}}}}]
contexts: [{{name: bench, context: {{cluster: bench, user: bench}}}}]
users: [{{name: bench, user: {{}}}}]
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """`shared` is the kind of device that any number of claims with adminAccess may hold at once."""

    name: str
    command: str
    kind_of: Callable[[JsonObject], str]
    shared: str = SHARED

    def command_for(self, folder: Path, server: str) -> list[str]:
        """The command line, with the placeholders filled in."""
        kubeconfig = folder / "kubeconfig"
        kubeconfig.write_text(_KUBECONFIG.format(server=server))
        places = {name: folder / name for name in ("data", "registry", "cdi")}
        values = {"server": server, "kubeconfig": kubeconfig, "node": NODE_NAME, "folder": folder}
        return [word.format(**places, **values) for word in shlex.split(self.command)]

    def on_disk(self, sync_ms: float) -> Recipe | None:
        """The same on a disk whose syncs take so long; None for a program that is no Python, whose syncs nobody here can slow."""
        if not self.command.startswith(_PYTHON):
            return None
        module = self.command.removeprefix(_PYTHON)
        return replace(self, command=f"{_PYTHON}tests.bench.disk {sync_ms:g} {module}")


def _our_kind(device: JsonObject) -> str:
    """What of our own devices is measured; monitors are prepared as whole GPUs are, but any number of claims may hold one."""
    attributes = {name: value.get("string") for name, value in device["attributes"].items()}
    if attributes["sharing"] == "monitor":
        return SHARED
    if attributes["sharing"] == "exclusive" and attributes["type"] == "gpu":
        return WHOLE
    return attributes["profile"] or ""


def _any_kind(device: JsonObject) -> str:
    return SHARED


OURS = Recipe(
    name=report.OURS,
    command=f"{_PYTHON}tests.bench.shipped kubelet_plugin {_PLUGIN}",
    kind_of=_our_kind,
)
REFERENCE = Recipe(
    name="reference",
    command=f"{_PYTHON}tests.bench.reference {{server}} {{data}} {{registry}} {{cdi}}",
    kind_of=_any_kind,
)


def instrumented() -> Recipe:
    """Ours with counted syncs: a byte each in `{folder}/syncs`."""
    command = f"{_PYTHON}tests.bench.instrumented {{folder}}/syncs {_PLUGIN}"
    return Recipe(name=report.OURS, command=command, kind_of=_our_kind)


def peers(environment: Mapping[str, str]) -> tuple[Recipe, ...]:
    """The reference model, and whoever the environment names."""
    named = [
        Recipe(name=name.removeprefix(PEER).lower(), command=command, kind_of=_any_kind)
        for name, command in sorted(environment.items())
        if name.startswith(PEER)
    ]
    return (REFERENCE, *named)
