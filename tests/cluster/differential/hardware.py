"""Random slices: small pools in all the shapes that the API has for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from dra_driver.model.kinds import RESOURCE_SLICE
from dra_driver.ports import JsonObject
from tests.cluster.differential.case import CASE_LABEL

COMMON_DOMAIN = "common.test"
"""Of attributes that devices of all drivers share."""

TAINT = "differential.test/sick"

_POLICIES: Sequence[JsonObject] = (
    {},
    {"default": "2Gi"},
    {"default": "2Gi", "validValues": ["2Gi", "4Gi", "8Gi"]},
    {"default": "2Gi", "validRange": {"min": "2Gi"}},
    {"default": "2Gi", "validRange": {"min": "2Gi", "max": "8Gi"}},
    {"default": "4Gi", "validRange": {"min": "1Gi", "max": "10Gi", "step": "3Gi"}},
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """What a case's slices are drawn from. `beta`: features that Kubernetes 1.34 has not switched on may occur."""

    rng: Random
    case: str
    nodes: Sequence[str]
    drivers: Sequence[str]
    beta: bool

    def publish(self) -> list[JsonObject]:
        """All slices of one to three pools."""
        pools = self.rng.choice((1, 2, 2, 3))
        return [published for index in range(pools) for published in self._pool(index)]

    def _pool(self, index: int) -> list[JsonObject]:
        rng = self.rng
        driver = rng.choice(self.drivers)
        counters = self._counters() if self.beta and rng.random() < 0.4 else []
        specs: list[JsonObject] = [{"sharedCounters": counters}] if counters else []
        start = 0
        for _ in range(rng.choice((1, 1, 2))):
            devices = [self._device(driver, start + i, counters) for i in range(rng.randint(2, 5))]
            start += len(devices) if rng.random() < 0.97 else 0
            specs.append({"devices": devices})
        self._place(specs)
        generation = rng.choice((1, 1, 2))
        count = len(specs) + (rng.random() < 0.05)
        slices = [
            {
                "apiVersion": RESOURCE_SLICE.api_version,
                "kind": RESOURCE_SLICE.kind,
                "metadata": {"name": f"{self.case}-{index}-{number}-{rng.randint(10, 99)}"},
                "spec": {
                    "driver": driver,
                    "pool": {
                        "name": f"{self.case}-p{index}",
                        "generation": generation,
                        "resourceSliceCount": count,
                    },
                    **spec,
                },
            }
            for number, spec in enumerate(specs)
        ]
        rng.shuffle(slices)
        return [*slices, *self._outdated(slices[0], generation)]

    def _outdated(self, current: JsonObject, generation: int) -> list[JsonObject]:
        """Sometimes, a slice that its driver has not removed yet."""
        if generation < 2 or self.rng.random() < 0.6:
            return []
        spec = current["spec"]
        pool = {**spec["pool"], "generation": generation - 1, "resourceSliceCount": 1}
        place = {"nodeName": self.rng.choice(self.nodes)}
        devices = [self._device(spec["driver"], 0, [])]
        name = current["metadata"]["name"] + "-old"
        outdated = {"driver": spec["driver"], "pool": pool, "devices": devices, **place}
        return [{**current, "metadata": {"name": name}, "spec": outdated}]

    def _counters(self) -> list[JsonObject]:
        return [
            {
                "name": f"set{number}",
                "counters": {
                    name: {"value": str(self.rng.randint(2, 5))} for name in ("slices", "engines")
                },
            }
            for number in range(self.rng.choice((1, 1, 2)))
        ]

    def _device(self, driver: str, number: int, counters: Sequence[JsonObject]) -> JsonObject:
        rng = self.rng
        own = rng.choice(("", f"{driver}/"))
        attributes: JsonObject = {
            f"{own}model": {"string": rng.choice("ab")},
            f"{own}index": {"int": number},
            f"{COMMON_DOMAIN}/root": {"string": rng.choice(("r0", "r1"))},
        }
        if rng.random() < 0.6:
            attributes["group"] = rng.choice(
                ({"int": 1}, {"int": 2}, {"bool": True}, {"string": "1"})
            )
        if rng.random() < 0.6:
            attributes[f"{own}release"] = {"version": rng.choice(("1.2.3", "1.10.0", "2.0.0-rc.1"))}
        memory = rng.choice((4, 8, 8, 12))
        device: JsonObject = {
            "name": f"dev-{number}",
            "attributes": attributes,
            "capacity": {"memory": {"value": f"{memory}Gi"}},
        }
        if self.beta:
            self._add_beta(device, counters)
        return device

    def _add_beta(self, device: JsonObject, counters: Sequence[JsonObject]) -> None:
        rng = self.rng
        if rng.random() < 0.3:
            device["allowMultipleAllocations"] = True
            policy = rng.choice(_POLICIES)
            if policy:
                device["capacity"]["memory"] = {"value": "12Gi", "requestPolicy": policy}
            if rng.random() < 0.1:
                del device["capacity"]
        if rng.random() < 0.15:
            effect = rng.choice(("NoSchedule", "NoExecute", "None"))
            device["taints"] = [{"key": TAINT, "value": rng.choice("xy"), "effect": effect}]
        if counters and rng.random() < 0.8:
            counter_set = rng.choice(counters)
            names = rng.choice((("slices",), ("slices", "engines")))
            amounts = {name: {"value": str(rng.randint(1, 3))} for name in names}
            device["consumesCounters"] = [{"counterSet": counter_set["name"], "counters": amounts}]

    def _place(self, specs: Sequence[JsonObject]) -> None:
        """Put the slices of a pool where they can be reached from, all the same way or, rarely, each in its own."""
        rng = self.rng
        if self.beta and rng.random() < 0.15:
            for spec in specs:
                spec["perDeviceNodeSelection"] = True
                for device in spec.get("devices", ()):
                    device.update(self._somewhere())
            return
        everywhere = self._somewhere()
        spread = rng.random() < 0.1
        for spec in specs:
            spec.update(self._somewhere() if spread else everywhere)

    def _somewhere(self) -> JsonObject:
        rng = self.rng
        if rng.random() < 0.7:
            return {"nodeName": rng.choice(self.nodes)}
        case = {"key": CASE_LABEL, "operator": "In", "values": [self.case]}
        zone = {"key": "zone", "operator": rng.choice(("In", "NotIn")), "values": ["a"]}
        expressions = rng.choice(([case], [case, zone]))
        return {"nodeSelector": {"nodeSelectorTerms": [{"matchExpressions": expressions}]}}
