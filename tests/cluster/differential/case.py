"""A question to a scheduler, as Kubernetes objects: on which node does a pod go, and which devices do its claims get."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dra_driver.kube.codec import claim_from_json, class_from_json, slice_from_json
from dra_driver.model.claim import Claim
from dra_driver.model.slices import ResourceSlice
from dra_driver.ports import JsonObject
from dra_driver.rules.allocate import Allocated, Cluster
from dra_driver.rules.nodes import NodeInfo

CASE_LABEL = "differential.test/case"
"""On a case's nodes; its pod goes nowhere else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Objects that concern no other case: names begin with `name`, drivers and classes are the case's own.

    `held` are other pods' claims, allocated already (`status.allocation`); `claims` are those of the pod, in its order.
    """

    name: str
    nodes: tuple[JsonObject, ...]
    classes: tuple[JsonObject, ...]
    slices: tuple[JsonObject, ...]
    held: tuple[JsonObject, ...]
    claims: tuple[JsonObject, ...]

    @property
    def node_infos(self) -> tuple[NodeInfo, ...]:
        """What selectors see of the nodes."""
        return tuple(
            NodeInfo(name=n["metadata"]["name"], labels=n["metadata"]["labels"]) for n in self.nodes
        )

    @property
    def published(self) -> tuple[ResourceSlice, ...]:
        """The slices as our allocator reads them."""
        return tuple(map(slice_from_json, self.slices))

    @property
    def open_claims(self) -> tuple[Claim, ...]:
        """The pod's claims as our allocator reads them."""
        return tuple(map(_read_claim, self.claims))

    @property
    def cluster(self) -> Cluster:
        """What our allocator is told of the rest."""
        return Cluster(
            classes={c["metadata"]["name"]: class_from_json(c) for c in self.classes},
            slices=self.published,
            allocated=Allocated.of(map(_read_claim, self.held)),
        )

    @property
    def has_constraints(self) -> bool:
        """Whether devices have to go together."""
        return any(claim["spec"]["devices"].get("constraints") for claim in self.claims)

    def __str__(self) -> str:
        """The whole case, a line for each device, request and so on."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield f"case {self.name}"
        for node in self.nodes:
            yield f"  node {node['metadata']['name']} {_compact(node['metadata']['labels'])}"
        for device_class in self.classes:
            yield f"  class {device_class['metadata']['name']} {_compact(device_class['spec'])}"
        for published in self.slices:
            spec = dict(published["spec"])
            devices = spec.pop("devices", ())
            yield f"  slice {published['metadata']['name']} {_compact(spec)}"
            yield from (f"    {_compact(device)}" for device in devices)
        for claim in self.held:
            yield f"  held {_compact(claim['status']['allocation']['devices']['results'])}"
        for claim in self.claims:
            yield f"  claim {claim['metadata']['name']}"
            for key, entries in claim["spec"]["devices"].items():
                yield from (f"    {key} {_compact(entry)}" for entry in entries)


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _read_claim(claim: JsonObject) -> Claim:
    metadata: Mapping[str, Any] = claim["metadata"]
    identity = {"namespace": "ns", "uid": metadata["name"]}
    return claim_from_json({**claim, "metadata": {**identity, **metadata}})
