"""Random cases, small enough to be read and crowded enough to be hard. Equal seeds make equal cases."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from dra_driver.model.kinds import DEVICE_CLASS, NODE, RESOURCE_CLAIM
from dra_driver.ports import JsonObject
from tests.cluster.differential.case import CASE_LABEL, Case
from tests.cluster.differential.hardware import COMMON_DOMAIN, TAINT, Hardware


def generate(seed: int, *, beta: bool) -> Case:
    """The case of that seed. `beta`: with features that Kubernetes 1.34 has not switched on by default."""
    rng = Random(f"differential-{seed}")
    name = f"c{seed}"
    nodes = [f"{name}-n{number}" for number in range(rng.choice((1, 1, 2, 3)))]
    drivers = [f"d{number}.{name}.test" for number in range(rng.choice((1, 1, 2)) if beta else 1)]
    hardware = Hardware(rng=rng, case=name, nodes=nodes, drivers=drivers, beta=beta)
    slices = hardware.publish()
    demand = _Demand(rng=rng, case=name, drivers=drivers, beta=beta)
    return Case(
        name=name,
        nodes=tuple(_node(name, node, rng) for node in nodes),
        classes=tuple(demand.classes()),
        slices=tuple(slices),
        held=tuple(demand.held(slices)),
        claims=tuple(demand.claim(number) for number in range(rng.choice((1, 1, 1, 2)))),
    )


def _node(case: str, name: str, rng: Random) -> JsonObject:
    labels = {CASE_LABEL: case, "zone": rng.choice("ab")}
    return {
        "apiVersion": "v1",
        "kind": NODE.kind,
        "metadata": {"name": name, "labels": labels},
        "status": {"allocatable": {"pods": "110"}},
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Demand:
    """What is asked of the hardware, and what has been given of it."""

    rng: Random
    case: str
    drivers: Sequence[str]
    beta: bool

    def classes(self) -> list[JsonObject]:
        """One for all devices of the case, one for some. The first selector keeps other cases' devices away."""
        ours = f'device.driver.endsWith(".{self.case}.test")'
        some = 'device.attributes[device.driver].model == "a"'
        return [self._class("any", [ours]), self._class("some", [ours, some])]

    def held(self, slices: Sequence[JsonObject]) -> list[JsonObject]:
        """Claims of other pods that hold some of the devices already."""
        if self.rng.random() < 0.45:
            return []
        devices = [(s["spec"], device) for s in slices for device in s["spec"].get("devices", ())]
        chosen = self.rng.sample(devices, self.rng.randint(1, min(3, len(devices))))
        return [
            self._held(number, spec, device)
            for number, (spec, device) in enumerate(chosen)
            for number in range(10 * number, 10 * number + self._holders(device))
        ]

    def claim(self, number: int) -> JsonObject:
        """One of the pod's claims."""
        rng = self.rng
        requests = [self._request(f"r{index}") for index in range(rng.choice((1, 1, 1, 2, 2, 3)))]
        devices: JsonObject = {"requests": requests}
        names = [name for request in requests for name in _names(request)]
        if rng.random() < 0.45:
            devices["constraints"] = [
                self._constraint(names, requests) for _ in range(rng.choice((1, 1, 2)))
            ]
        if rng.random() < 0.15:
            devices["config"] = [
                {**self._config(), "requests": rng.sample(names, rng.randint(0, len(names)))}
                for _ in range(rng.choice((1, 2)))
            ]
        return _claim(f"{self.case}-{number}", devices)

    def _class(self, name: str, selectors: Sequence[str]) -> JsonObject:
        spec: JsonObject = {"selectors": [{"cel": {"expression": s}} for s in selectors]}
        if self.rng.random() < 0.15:
            spec["config"] = [self._config()]
        return {
            "apiVersion": DEVICE_CLASS.api_version,
            "kind": DEVICE_CLASS.kind,
            "metadata": {"name": f"{self.case}-{name}"},
            "spec": spec,
        }

    def _config(self) -> JsonObject:
        parameters = {"number": self.rng.randint(1, 9)}
        return {"opaque": {"driver": self.rng.choice(self.drivers), "parameters": parameters}}

    def _holders(self, device: JsonObject) -> int:
        return self.rng.choice((1, 1, 2)) if device.get("allowMultipleAllocations") else 1

    def _held(self, number: int, spec: JsonObject, device: JsonObject) -> JsonObject:
        rng = self.rng
        exactly: JsonObject = {"deviceClassName": f"{self.case}-any"}
        result: JsonObject = {
            "request": "r",
            "driver": spec["driver"],
            "pool": spec["pool"]["name"],
            "device": device["name"] if rng.random() < 0.95 else "gone",
        }
        if rng.random() < 0.1:
            exactly["adminAccess"] = result["adminAccess"] = True
        if device.get("allowMultipleAllocations"):
            result["shareID"] = str(uuid.UUID(int=rng.getrandbits(128), version=4))
            if "capacity" in device:
                result["consumedCapacity"] = {"memory": rng.choice(("2Gi", "4Gi"))}
        claim = _claim(
            f"{self.case}-held-{number}", {"requests": [{"name": "r", "exactly": exactly}]}
        )
        claim["status"] = {"allocation": {"devices": {"results": [result]}}}
        return claim

    def _request(self, name: str) -> JsonObject:
        if self.rng.random() < 0.75:
            return {"name": name, "exactly": self._wanted(admin=self.rng.random() < 0.06)}
        alternatives = [
            {"name": f"s{number}", **self._wanted(admin=False)}
            for number in range(self.rng.choice((2, 2, 3)))
        ]
        return {"name": name, "firstAvailable": alternatives}

    def _wanted(self, *, admin: bool) -> JsonObject:
        rng = self.rng
        wanted: JsonObject = {"deviceClassName": f"{self.case}-{rng.choice(('any', 'some'))}"}
        if rng.random() < 0.1:
            wanted["allocationMode"] = "All"
        else:
            wanted["count"] = rng.choice((1, 1, 1, 1, 2, 3))
        if rng.random() < 0.35:
            wanted["selectors"] = [{"cel": {"expression": self._selector()}}]
        if admin:
            wanted["adminAccess"] = True
        if self.beta and rng.random() < 0.3:
            wanted["capacity"] = {
                "requests": {"memory": rng.choice(("1Gi", "2Gi", "3Gi", "4Gi", "6Gi", "9Gi"))}
            }
        if self.beta and rng.random() < 0.25:
            wanted["tolerations"] = [self._toleration()]
        return wanted

    def _selector(self) -> str:
        rng = self.rng
        own, capacity = (f"device.{kind}[device.driver]" for kind in ("attributes", "capacity"))
        if rng.random() < 0.06:
            return f"{own}.group == 1"  # fails where there is no group
        choices = [
            f'{own}.model == "{rng.choice("ab")}"',
            f"{own}.index {rng.choice(('<', '>='))} {rng.randint(1, 3)}",
            f"{own}.?group.orValue(0) == {rng.choice(('1', '2', 'true'))}",
            f'device.attributes["{COMMON_DOMAIN}"].root == "r{rng.randint(0, 1)}"',
            f'"memory" in {capacity} && {capacity}.memory.compareTo(quantity("8Gi")) >= 0',
            f'{own}.?release.orValue(semver("1.2.3")).isLessThan(semver("1.9.0"))',
            f'"release" in {own} && {own}.release == semver("1.10.0")',
            f'device.driver == "{rng.choice(self.drivers)}"',
        ]
        if self.beta:
            choices.append("device.allowMultipleAllocations")
        return rng.choice(choices)

    def _toleration(self) -> JsonObject:
        rng = self.rng
        effect = rng.choice(({}, {"effect": "NoSchedule"}, {"effect": "NoExecute"}))
        return {
            **rng.choice(
                (
                    {"operator": "Exists"},
                    {"key": TAINT, "operator": "Exists"},
                    {"key": TAINT, "operator": "Equal", "value": rng.choice("xy")},
                )
            ),
            **effect,
        }

    def _constraint(self, names: Sequence[str], requests: Sequence[JsonObject]) -> JsonObject:
        rng = self.rng
        kind = (
            rng.choice(("matchAttribute", "distinctAttribute")) if self.beta else "matchAttribute"
        )
        own = rng.choice(self.drivers)
        attribute = rng.choice(
            (
                f"{COMMON_DOMAIN}/root",
                f"{COMMON_DOMAIN}/root",
                f"{own}/model",
                f"{own}/index",
                f"{own}/group",
            )
        )
        chosen = rng.sample(names, rng.randint(1, len(names))) if rng.random() < 0.4 else []
        return {kind: attribute, **({"requests": chosen} if chosen else {})}


def _names(request: JsonObject) -> list[str]:
    """How constraints and configurations can name the request and its alternatives."""
    name = request["name"]
    return [name, *(f"{name}/{sub['name']}" for sub in request.get("firstAvailable", ()))]


def _claim(name: str, devices: JsonObject) -> JsonObject:
    return {
        "apiVersion": RESOURCE_CLAIM.api_version,
        "kind": RESOURCE_CLAIM.kind,
        "metadata": {"name": name},
        "spec": {"devices": devices},
    }
