"""Claim objects as an API server might send them: planned, or refused as what they are."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

from dra_driver.journal import transitions
from dra_driver.journal.lines import intact_entries, line
from dra_driver.kube.codec import allocated_claim_from_json, claim_from_json
from dra_driver.model.claim import AllocatedClaim
from dra_driver.model.errors import DraError
from dra_driver.model.inventory import Inventory
from dra_driver.model.names import DRIVER_NAME
from dra_driver.model.record import ClaimRecord
from dra_driver.ports import JsonObject
from dra_driver.vendors.discovery import discover
from dra_driver.vendors.nvidia.backend import NvidiaBackend
from dra_driver.vendors.nvidia.simulated import SimulatedNvml
from kubelet_plugin.planner import Snapshot, plan_prepare
from tests.fuzz.mutation import mutated
from tests.fuzz.parameters import VALID
from tests.kubelet_plugin.conftest import BOOT, NODE, POOL, machine_of

_WHOLE = "gpu-0000-1b-00-0"
_PARTITION = "gpu-0000-43-00-0-mig-1g-10gb-6"
_BESIDE = "gpu-0000-43-00-0-mig-3g-40gb-0"


def new_claim(number: int, *results: JsonObject, **spec: Any) -> JsonObject:
    """A claim that is allocated."""
    parameters = VALID[number % 3]
    config = {"source": "FromClaim", "opaque": {"driver": DRIVER_NAME, "parameters": parameters}}
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaim",
        "metadata": {
            "namespace": "team",
            "name": f"claim-{number}",
            "uid": f"00000000-0000-4000-8000-{number:012x}",
            "resourceVersion": "4711",
        },
        "spec": {"devices": spec},
        "status": {
            "allocation": {"devices": {"results": list(results), "config": [config]}},
            "reservedFor": [{"resource": "pods", "name": "train-0", "uid": "pod-uid"}],
        },
    }


def _result(request: str, device: str, **more: Any) -> JsonObject:
    return {"request": request, "driver": DRIVER_NAME, "pool": POOL, "device": device} | more


CLAIMS = (
    new_claim(0, _result("r", _WHOLE), requests=[{"name": "r", "exactly": {"deviceClassName": "c"}}]),
    new_claim(1, _result("r", _PARTITION), _result("s/sub", _BESIDE)),
    new_claim(2, _result("r", f"{_WHOLE}-monitor", adminAccess=True), constraints=[{"matchAttribute": "a/b"}]),
    new_claim(3, _result("r", _WHOLE, shareID="s", consumedCapacity={"memory": "20Gi"}), _result("q", _PARTITION)),
    new_claim(4, _result("r", _PARTITION) | {"driver": "other"}, _result("r", _BESIDE, tolerations=[{"operator": "Exists"}])),
)  # fmt: skip


def fuzz_claims(inputs: Iterable[Random]) -> int:
    """Nothing but DraErrors; a plan holds devices of the node only, and can be written down. Returns how many were planned."""
    inventory = _inventory()
    beside = allocated_claim_from_json(new_claim(99, _result("r", _BESIDE)))
    held = _plan(inventory, beside, {})
    planned = 0
    for random in inputs:
        body = mutated(random, random.choice(CLAIMS))
        records = {held.claim.uid: held} if random.random() < 0.5 else {}
        with suppress(DraError):
            claim_from_json(body)
        with suppress(DraError):
            record = _plan(inventory, allocated_claim_from_json(body), records)
            _check_plan(record, inventory)
            planned += 1
    return planned


def _check_plan(record: ClaimRecord, inventory: Inventory) -> None:
    assert record.grants
    assert {grant.gpu for grant in record.grants} <= {gpu.pci_address for gpu in inventory.gpus}
    (stored,) = intact_entries(line(transitions.intent(record)))
    assert transitions.follow(None, stored) == record


def _plan(
    inventory: Inventory, claim: AllocatedClaim, records: dict[str, ClaimRecord]
) -> ClaimRecord:
    return plan_prepare(
        Snapshot(
            claim=claim,
            node=NODE,
            inventories={POOL: inventory},
            records=records,
            boot_id=BOOT,
            owner="fuzz",
        )
    )


def _inventory() -> Inventory:
    with tempfile.TemporaryDirectory(prefix="dra-") as folder:
        nvml = SimulatedNvml(machine_of("H100-SXM5-80GB"), node=NODE, state_dir=Path(folder))
        return discover(NvidiaBackend(nvml))
