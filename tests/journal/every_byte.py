"""A journal of 20 claims, and every way to damage one byte of it: `python -m tests.journal.every_byte` tries them all.

Each byte of each file is flipped, and each file is cut before each byte. What must hold is the same every time: the record is
read as it was, or its claim alone is reported, with a state that it was once in, and comes back from the note in its CDI file.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from dra_driver.cdi.folder import CdiFolder
from dra_driver.journal.store import ClaimJournal
from dra_driver.model.claim import ClaimRef
from dra_driver.model.device import CreateStage, Placement, SetMode
from dra_driver.model.edits import ContainerEdits, DeviceNode
from dra_driver.model.names import cdi_device_id, cdi_device_name
from dra_driver.model.record import ClaimRecord, Grant, Preparation, PreparedDevice, Step

BOOT = "0b0e0f3c-7a8b-4c1d-9e2f-3a4b5c6d7e8f"
CLAIMS = 20
PROCESSES = 2


@dataclass(frozen=True, slots=True)
class Case:
    """One claim's file with one bit flipped in the byte at `place`, or cut off before it."""

    claim: int
    place: int
    cut: bool

    def apply(self, original: bytes) -> bytes:
        """The file's bytes afterwards."""
        if self.cut:
            return original[: self.place]
        flipped = bytearray(original)
        flipped[self.place] ^= 1 << self.place % 8
        return bytes(flipped)


class DamagedJournal:
    """Twenty claims on disk: whole GPUs and partitions, each in one of the states of its life, with their CDI files."""

    def __init__(self, folder: Path) -> None:
        self._journal = ClaimJournal(folder / "journal", boot_id=BOOT, sync=lambda _: None)
        self._cdi = CdiFolder(folder / "cdi")
        self._states = [self._live(number) for number in range(CLAIMS)]
        self._records = {states[-1].claim.uid: states[-1] for states in self._states}
        self._files = [folder / "journal" / BOOT / f"{uid}.jsonl" for uid in self._records]
        self._originals = [path.read_bytes() for path in self._files]
        assert self._journal.load() == (self._records, ())

    def cases(self) -> Iterator[Case]:
        """Every flip and every cut of every file."""
        for claim, original in enumerate(self._originals):
            for place in range(len(original)):
                yield Case(claim, place, cut=False)
                yield Case(claim, place, cut=True)

    def check(self, case: Case) -> str:
        """Damage the file, see that all holds, and put it back; returns how it went."""
        path, states = self._files[case.claim], self._states[case.claim]
        uid = states[-1].claim.uid
        path.write_bytes(case.apply(self._originals[case.claim]))
        records, damages = self._journal.load()
        if not damages:
            assert records == self._records, case
            verdict = "the same"
        else:
            (damage,) = damages
            assert {uid: self._records[uid], **records} == self._records, case
            assert (uid in records, damage.claim_uid, damage.newer) == (False, uid, False), case
            assert damage.salvaged in (None, *states), case
            verdict = self._rebuild(uid, states[-1])
        self._journal.forget(uid)
        path.write_bytes(self._originals[case.claim])
        return verdict

    def _rebuild(self, uid: str, record: ClaimRecord) -> str:
        note = self._cdi.note(uid)
        if note is None:
            return "refused: nothing was promised yet"
        expected = replace(record, preparation=None, releasing=False)
        assert self._journal.rebuild(uid, note) == expected
        assert self._journal.load() == (self._records | {uid: expected}, ())
        return "rebuilt"

    def _live(self, number: int) -> list[ClaimRecord]:
        """Let the claim live up to some moment; returns all states that it was in."""
        record = _record(number)
        uid, moment = record.claim.uid, number // 2
        self._journal.begin(record)
        states = [record]
        for identity in ("whole", "3", "3/1")[: len(record.steps)][:moment]:
            self._journal.step(uid, identity)
            states.append(replace(states[-1], identities=(*states[-1].identities, identity)))
        if moment >= 4:
            preparation = _preparation(record)
            self._cdi.write(uid, preparation.edits, self._journal.note(states[-1]))
            if moment >= 5:
                self._journal.finish(uid, preparation)
                states.append(replace(states[-1], preparation=preparation))
        if moment in {3, 8, 9}:
            self._journal.releasing(uid)
            states.append(replace(states[-1], releasing=True))
        return states


def check_all(cases: Iterable[Case]) -> Counter[str]:
    """How many cases went which way; AssertionError at the first that goes wrong."""
    folder = Path(
        tempfile.mkdtemp(prefix="dra-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
    )
    try:
        damaged = DamagedJournal(folder)
        return Counter(damaged.check(case) for case in cases)
    finally:
        shutil.rmtree(folder)


def all_cases() -> list[Case]:
    """Every flip and every cut."""
    with tempfile.TemporaryDirectory(prefix="dra-") as folder:
        return list(DamagedJournal(Path(folder)).cases())


def _record(number: int) -> ClaimRecord:
    """Even numbers are whole GPUs, which need no step; odd ones partitions, which need three."""
    gpu = f"0000:{number:02x}:00.0"
    placement = Placement(6, 1) if number % 2 else None
    device = f"gpu-0000-{number:02x}-00-0" + ("-mig-1g-10gb-6" if placement else "")
    steps = [Step(device=device, change=SetMode(gpu=gpu, mode="mig"))] if placement else []
    steps += [
        Step(
            device=device,
            change=CreateStage(gpu=gpu, profile="1g.10gb", placement=placement, stage=stage),
        )
        for stage in ("gpu-instance", "compute-instance")
        if placement
    ]
    grant = Grant(
        device=device,
        pool="n1/nvidia",
        requests=("gpu",),
        gpu=gpu,
        profile="1g.10gb" if placement else None,
        placement=placement,
    )
    uid = f"00000000-0000-4000-8000-{number:012x}"
    return ClaimRecord(
        claim=ClaimRef(namespace="ml", name=f"claim-{number}", uid=uid),
        boot_id=BOOT,
        owner="plugin-a",
        grants=(grant,),
        steps=tuple(steps),
    )


def _preparation(record: ClaimRecord) -> Preparation:
    (grant,) = record.grants
    uid = record.claim.uid
    device = PreparedDevice(
        requests=grant.requests,
        pool=grant.pool,
        device=grant.device,
        cdi_ids=(cdi_device_id(uid, grant.device),),
    )
    edits = ContainerEdits(
        env=(("NVIDIA_VISIBLE_DEVICES", "void"),),
        device_nodes=(DeviceNode(path="/dev/nvidia0"), DeviceNode(path="/dev/nvidiactl")),
    )
    return Preparation(devices=(device,), edits=((cdi_device_name(uid, grant.device), edits),))


def main() -> int:
    """Try all; prints what came of them."""
    cases = all_cases()
    with ProcessPoolExecutor(PROCESSES) as pool:
        verdicts = sum(
            pool.map(check_all, (cases[part::PROCESSES] for part in range(PROCESSES))),
            Counter[str](),
        )
    print(f"{verdicts.total()} damages of {CLAIMS} claims:")  # noqa: T201 - its only output
    for verdict, number in verdicts.most_common():
        print(f"{number:8} {verdict}")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
