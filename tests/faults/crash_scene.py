"""Where plugins crash: a node with two GPUs, kinds of claims for one of them, and bystanders on the other."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from dra_driver.model.device import SetMode
from dra_driver.ports import JsonObject
from tests.faults.cluster import Cluster, serving_cluster
from tests.faults.forks import Forks
from tests.faults.invariants import Violation
from tests.faults.kill_points import KillPoint
from tests.faults.node import Node, short_folder

NODE_NAME: Final = "n"
GPU: Final = "0000:1b:00.0"
_NAME: Final = "gpu-0000-1b-00-0"
_OTHER: Final = "gpu-0000-43-00-0"
_BYSTANDERS: Final = (f"{_OTHER}-mig-1g-10gb-6", f"{_OTHER}-mig-2g-20gb-2")
_MACHINE: Final = """
apiVersion: gpu.dra-driver.dev/v1alpha1
kind: Machine
name: two-gpus
gpus:
- {vendor: nvidia, model: H100-SXM5-80GB}
- {vendor: nvidia, model: H100-SXM5-80GB, mode: mig, instances: [{profile: 1g.10gb, start: 0}]}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """A kind of claim, and the mode of its GPU before: another one than it needs, so that the mode is changed as well."""

    name: str
    devices: tuple[str, ...]
    mode: str
    admin: bool = False


TWO_PARTITIONS: Final = Form(
    name="two partitions",
    devices=(f"{_NAME}-mig-1g-10gb-6", f"{_NAME}-mig-3g-40gb-0"),
    mode="whole",
)
PASSED_THROUGH: Final = Form(name="virtual machine", devices=(f"{_NAME}-vfio",), mode="mig")
FORMS: Final = (
    Form(name="whole GPU", devices=(_NAME,), mode="mig"),
    Form(name="partition", devices=(f"{_NAME}-mig-1g-10gb-6",), mode="whole"),
    TWO_PARTITIONS,
    PASSED_THROUGH,
    Form(name="monitor", devices=(f"{_NAME}-monitor",), mode="whole", admin=True),
)


@dataclass(slots=True)
class Outcome:
    """Points at which a process died, points that it did not reach, and what was wrong."""

    died: list[KillPoint] = field(default_factory=list)
    unreached: list[KillPoint] = field(default_factory=list)
    wrongs: list[str] = field(default_factory=list)

    def note(self, point: KillPoint | None, when: str, wrongs: Sequence[Violation | str]) -> None:
        """These are wrong, some time after the kill at that point."""
        self.wrongs += [f"{point}, {when}: {wrong}" for wrong in wrongs]


class Scene:
    """One node with its API server, and what has come of the crashes on it."""

    def __init__(self, node: Node, cluster: Cluster) -> None:
        self.node = node
        self.cluster = cluster
        self.outcome = Outcome()

    async def new_claim(self, form: Form) -> JsonObject:
        """A claim of that kind, whose GPU is in the wrong mode for it. No plugin may be running."""
        self.node.backend.partition(SetMode(gpu=GPU, mode=form.mode))
        return await self.cluster.new_claim(*form.devices, admin=form.admin)

    async def give_back(self, point: KillPoint, claim: JsonObject) -> bool:
        """Unprepare, twice as a kubelet may; then nothing is left of the claim. Whether nothing has been wrong so far."""
        outcome = self.outcome
        if outcome.wrongs:
            return False
        for _ in range(2):
            error = await self.node.unprepare(claim)
            outcome.note(point, "unprepare", [error] if error else [])
        outcome.note(point, "in the end", await self.node.settles())
        left = self.node.folder.rglob(f"*{claim['metadata']['uid']}*")
        outcome.note(point, "left", [str(path) for path in left if path.suffix != ".settled"])
        outcome.note(point, "away", [str(path) for path in self._with_vfio()])
        await self.node.kill()
        await self.cluster.delete(claim)
        return not outcome.wrongs

    def _with_vfio(self) -> list[Path]:
        """The PCI functions that no virtual machine has any more, and that are not with their own drivers."""
        devices = (self.node.folder / "hardware/sys/bus/pci/devices").iterdir()
        own = {"nvidia", "snd_hda_intel"}
        return [one for one in devices if (one / "driver").resolve().name not in own]


@asynccontextmanager
async def staged(forks: Forks) -> AsyncIterator[Scene]:
    """A node that no plugin serves, whose bystanders are prepared; when the block ends they are as they were.

    They hold partitions of another GPU, beside one that somebody else has made there.
    """
    with short_folder() as folder:
        machine = folder / "machine.yaml"
        machine.write_text(_MACHINE)
        async with serving_cluster(NODE_NAME) as cluster:
            node = Node(folder, str(machine), cluster, forks)
            node.offer_passthrough()
            await node.start()
            scene = Scene(node, cluster)
            claims = [await cluster.new_claim(device) for device in _BYSTANDERS]
            assert [await node.prepare(claim) for claim in claims] == ["", ""]
            assert await node.settles() == []
            await node.stop()
            yield scene
            if not scene.outcome.wrongs:
                await node.start()
                errors = [await node.unprepare(claim) for claim in claims]
                scene.outcome.note(None, "bystanders", [error for error in errors if error])
                scene.outcome.note(None, "bystanders", await node.settles())
                await node.stop()
