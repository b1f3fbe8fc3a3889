"""Cases written by hand: one class for everything, one driver, as few devices as it takes."""

from __future__ import annotations

import uuid
from typing import Any

from dra_driver.model.kinds import DEVICE_CLASS, NODE, RESOURCE_CLAIM, RESOURCE_SLICE
from dra_driver.ports import JsonObject
from tests.cluster.differential.case import CASE_LABEL, Case


def device(name: str, **more: Any) -> JsonObject:
    """A device; `attributes` as plain texts or numbers, `memory` as a quantity."""
    attributes = {
        key: {"int" if isinstance(value, int) else "string": value}
        for key, value in more.pop("attributes", {}).items()
    }
    if memory := more.pop("memory", None):
        more["capacity"] = {"memory": {"value": memory}}
    return {"name": name, "attributes": attributes, **more}


def consuming(name: str, number: int, *, counter_set: str = "set", **more: Any) -> JsonObject:
    """A device that consumes some of the counter `n`."""
    charge = {"counterSet": counter_set, "counters": {"n": {"value": str(number)}}}
    return device(name, consumesCounters=[charge], **more)


def counter_set(number: int, name: str = "set") -> JsonObject:
    """A counter set with the one counter `n`."""
    return {"name": name, "counters": {"n": {"value": str(number)}}}


def selector(expression: str) -> list[JsonObject]:
    """For a request's `selectors`; `own` in it are the attributes of our driver."""
    own = "device.attributes[device.driver]"
    return [{"cel": {"expression": expression.replace("own", own)}}]


class SmallCase:
    """A case in the making. The nodes are `<name>-a`, which everything is on unless said otherwise, and `<name>-b`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.driver = f"{name}.test"
        self._slices: list[JsonObject] = []
        self._held: list[JsonObject] = []
        self._claims: list[JsonObject] = []

    @property
    def case(self) -> Case:
        """What has been put together."""
        ours = [{"cel": {"expression": f'device.driver == "{self.driver}"'}}]
        return Case(
            name=self.name,
            nodes=tuple(self._node(letter) for letter in "ab"),
            classes=(self._object(DEVICE_CLASS, self.name, {"selectors": ours}),),
            slices=tuple(self._slices),
            held=tuple(self._held),
            claims=tuple(self._claims),
        )

    def publish(self, *devices: JsonObject, pool: str = "p", of: int = 1, **spec: Any) -> None:
        """Add a slice; `of` is how many its pool has, `node` where it is (none: the specification says it)."""
        node = spec.pop("node", "a")
        generation = spec.pop("generation", 1)
        place = {"nodeName": f"{self.name}-{node}"} if node else {}
        body = {
            "driver": self.driver,
            "pool": {"name": pool, "generation": generation, "resourceSliceCount": of},
            **({"devices": list(devices)} if devices else {}),
            **place,
            **spec,
        }
        name = f"{self.name}-{len(self._slices)}"
        self._slices.append(self._object(RESOURCE_SLICE, name, body))

    def hold(self, name: str, *, shared: bool = False, pool: str = "p", **more: Any) -> None:
        """Let another pod's claim have the device, or a share of it."""
        result = {"request": "r", "driver": self.driver, "pool": pool, "device": name, **more}
        if shared:
            result["shareID"] = str(uuid.uuid4())
        claim = self._claim(f"{self.name}-held-{len(self._held)}", [self.request("r")], {})
        claim["status"] = {"allocation": {"devices": {"results": [result]}}}
        self._held.append(claim)

    def request(self, name: str, **more: Any) -> JsonObject:
        """A request for one device of any kind, unless said otherwise."""
        return {"name": name, "exactly": {"deviceClassName": self.name, **more}}

    def first_available(self, name: str, *alternatives: JsonObject) -> JsonObject:
        """A request with these alternatives, each said in its own fields."""
        subs = [{"deviceClassName": self.name, **alternative} for alternative in alternatives]
        return {"name": name, "firstAvailable": subs}

    def ask(self, *requests: JsonObject, **more: Any) -> None:
        """Add a claim of the pod, for one device of any kind unless said otherwise."""
        name = f"{self.name}-{len(self._claims)}"
        self._claims.append(self._claim(name, requests or [self.request("r")], more))

    def _claim(self, name: str, requests: Any, more: JsonObject) -> JsonObject:
        devices = {"requests": list(requests), **more}
        return self._object(RESOURCE_CLAIM, name, {"devices": devices})

    def _node(self, letter: str) -> JsonObject:
        labels = {CASE_LABEL: self.name}
        return {
            "apiVersion": "v1",
            "kind": NODE.kind,
            "metadata": {"name": f"{self.name}-{letter}", "labels": labels},
            "status": {"allocatable": {"pods": "110"}},
        }

    @staticmethod
    def _object(kind: Any, name: str, spec: JsonObject) -> JsonObject:
        return {
            "apiVersion": kind.api_version,
            "kind": kind.kind,
            "metadata": {"name": name},
            "spec": spec,
        }
