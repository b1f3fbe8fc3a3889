"""`plan` and `gather`, as programs beside the files of a plugin that has worked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import yaml

from dra_driver.config.machine import load_machine
from dra_driver.journal.store import ClaimJournal, read_boot_id
from dra_driver.model.device import CreateStage
from dra_driver.model.record import ClaimRecord, Preparation
from dra_driver.ports import JsonObject
from dra_driver.vendors.discovery import discover
from dra_driver.vendors.nvidia.backend import NvidiaBackend
from dra_driver.vendors.nvidia.simulated import SimulatedNvml
from kubelet_plugin.planner import plan_prepare
from kubelet_plugin.state import NodeState
from tests.kubelet_plugin.conftest import NewClaim
from tests.vendors.faults import set_faults

Program: TypeAlias = Callable[..., subprocess.CompletedProcess[str]]

SLICE = "gpu-0000-1b-00-0-mig-1g-10gb-0"
WHOLE = "gpu-0000-1b-00-0"


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """Runs `dra-kubelet-plugin` on a node `n` with eight H100s, whose plugin keeps everything below one folder."""

    def run(
        command: str, *arguments: str, **changed: str | None
    ) -> subprocess.CompletedProcess[str]:
        own: dict[str, str | None] = {
            "node-name": "n",
            "data-dir": str(tmp_path / "data"),
            "simulation-dir": str(tmp_path / "hardware"),
            "machine": "8xh100-80",
        }
        settings = own | {name.replace("_", "-"): value for name, value in changed.items()}
        flags = [f"--{name}={value}" for name, value in settings.items() if value is not None]
        return subprocess.run(
            [sys.executable, "-m", "kubelet_plugin", command, *flags, *arguments],
            capture_output=True,
            check=False,
            env={"PATH": os.environ["PATH"]},
            text=True,
            timeout=30,
        )

    return run


@pytest.fixture
def claim_file(tmp_path: Path, new_claim: NewClaim) -> Callable[..., str]:
    """Writes an allocated claim as kubectl prints it; its path."""

    def write(*devices: Any, **changed: Any) -> str:
        claim = new_claim(*devices) | {"kind": "ResourceClaim"} | changed
        path = tmp_path / f"{claim['metadata']['name']}.yaml"
        path.write_text(yaml.safe_dump(claim))
        return str(path)

    return write


class Worked:
    """The plugin's files, as if it had worked: records of this boot and simulated hardware."""

    def __init__(self, folder: Path) -> None:
        boot_id = read_boot_id()
        self.journal = ClaimJournal(folder / "data/claims", boot_id=boot_id)
        machine = load_machine("8xh100-80")
        nvml = SimulatedNvml(machine, node="n", state_dir=folder / "hardware/nvidia")
        self.backend = NvidiaBackend(nvml)
        self.state = NodeState("n", boot_id=boot_id, owner="test")
        self.state.observe(discover(self.backend))
        self.folder = folder

    def begin(self, claim: JsonObject, decode: Callable[[JsonObject], Any]) -> ClaimRecord:
        """Write the intent of preparing it."""
        record = plan_prepare(self.state.snapshot(decode(claim)))
        self.journal.begin(record)
        return record

    def files(self) -> dict[str, bytes]:
        """Everything there is."""
        paths = [path for path in self.folder.rglob("*") if path.is_file()]
        return {str(path): path.read_bytes() for path in paths}


@pytest.fixture
def worked(tmp_path: Path) -> Worked:
    return Worked(tmp_path)


def test_plan_for_people(program: Program, claim_file: Callable[..., str]) -> None:
    """Which device the claim gets, and each hardware change in its order."""
    done = program("plan", "-f", claim_file(SLICE))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "claim default/claim-1 on node n would be prepared",
        f"  {SLICE} of pool n/nvidia, for request r",
        "  1. GPU 0000:1b:00.0: switch to mode mig",
        "  2. GPU 0000:1b:00.0: create the gpu-instance of 1g.10gb at 0",
        "  3. GPU 0000:1b:00.0: create the compute-instance of 1g.10gb at 0",
    ]


def test_plan_for_programs(program: Program, claim_file: Callable[..., str]) -> None:
    """JSON and YAML say the same, in the words of the claim's record."""
    file = claim_file(SLICE)
    document = json.loads(program("plan", "-f", file, "-o", "json").stdout)
    assert document == yaml.safe_load(program("plan", "-f", file, "-o", "yaml").stdout)
    assert document["outcome"] == "Prepare"
    assert document["claim"]["name"] == "claim-1"
    [device] = document["devices"]
    assert (device["device"], device["profile"]) == (SLICE, "1g.10gb")
    assert [step["change"]["kind"] for step in document["steps"]] == [
        "setMode",
        "createStage",
        "createStage",
    ]


def test_plan_changes_nothing(
    program: Program, claim_file: Callable[..., str], worked: Worked, tmp_path: Path
) -> None:
    """No file is made, changed or removed: not even what another boot, or a damaged record, has left."""
    former = tmp_path / "data/claims/00000000-0000-0000-0000-00000000000b/x.jsonl"
    former.parent.mkdir(parents=True)
    former.write_text("old")
    damaged = tmp_path / f"data/claims/{read_boot_id()}/00000000-0000-0000-0000-0000000000ff.jsonl"
    damaged.parent.mkdir(parents=True)
    damaged.write_text("garbage")
    file = claim_file(WHOLE)
    before = worked.files()
    done = program("plan", "-f", file)
    assert done.returncode == 0
    assert worked.files() == before


def test_plan_without_a_trace_of_a_plugin(
    program: Program, claim_file: Callable[..., str], tmp_path: Path
) -> None:
    """A node where the plugin never ran has no records, and gets none."""
    file = claim_file(WHOLE)
    done = program("plan", "-f", file)
    assert done.stdout.splitlines()[-1] == "  no hardware changes"
    assert [path.name for path in tmp_path.iterdir()] == [Path(file).name]


def test_plan_sees_who_holds_the_device(
    program: Program,
    claim_file: Callable[..., str],
    worked: Worked,
    new_claim: NewClaim,
    decode: Callable[[JsonObject], Any],
) -> None:
    """What the prepare would wait for is an error that names the holder."""
    worked.begin(new_claim(WHOLE), decode)
    done = program("plan", "-f", claim_file(SLICE))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error: device {SLICE} is held by claim default/claim-1")


def test_plan_of_a_claim_that_was_begun(
    program: Program,
    worked: Worked,
    new_claim: NewClaim,
    decode: Callable[[JsonObject], Any],
    tmp_path: Path,
) -> None:
    """First the undoing, from the record; then the steps from what is left: the mode stays."""
    claim = new_claim(SLICE) | {"kind": "ResourceClaim"}
    record = worked.begin(claim, decode)
    for step in record.steps[:2]:
        identity = worked.backend.partition(step.change)
        worked.journal.step(record.claim.uid, identity)
    file = tmp_path / "claim.yaml"
    file.write_text(yaml.safe_dump(claim))
    document = json.loads(program("plan", "-f", str(file), "-o", "json").stdout)
    assert document["outcome"] == "UndoAndPrepare"
    [undo] = document["undo"]
    assert (undo["stage"], undo["placement"]) == ("gpu-instance", {"start": 0, "size": 1})
    assert [step["change"]["kind"] for step in document["steps"]] == ["createStage", "createStage"]
    lines = program("plan", "-f", str(file)).stdout.splitlines()
    assert lines[2] == "  1. GPU 0000:1b:00.0: destroy the gpu-instance of 1g.10gb at 0"


def test_plan_of_a_claim_that_is_prepared(
    program: Program,
    worked: Worked,
    new_claim: NewClaim,
    decode: Callable[[JsonObject], Any],
    tmp_path: Path,
) -> None:
    """It would be answered from its record: no change, whatever else has happened to the device's name since."""
    claim = new_claim(WHOLE) | {"kind": "ResourceClaim"}
    record = worked.begin(claim, decode)
    worked.journal.finish(record.claim.uid, Preparation(devices=(), edits=()))
    file = tmp_path / "claim.yaml"
    file.write_text(yaml.safe_dump(claim))
    assert program("plan", "-f", str(file)).stdout.splitlines() == [
        "claim default/claim-1 on node n is prepared: it would get the same answer again",
        f"  {WHOLE} of pool n/nvidia, for request r",
        "  no hardware changes",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind: Pod\n", "holds kind 'Pod', not one ResourceClaim"),
        ("- a\n", "holds a list where keys and values should be"),
        ("kind: ResourceClaim\nmetadata: {name: a}\n", "metadata.namespace is missing"),
    ],
)
def test_plan_refuses_what_is_no_claim(
    program: Program, tmp_path: Path, text: str, message: str
) -> None:
    """One line on stderr, exit code 1."""
    file = tmp_path / "claim.yaml"
    file.write_text(text)
    done = program("plan", "-f", str(file))
    assert (done.returncode, done.stdout) == (1, "")
    [line] = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert message in line


def test_plan_without_a_claim_is_wrong_usage(program: Program) -> None:
    """Exit code 2, as for every wrong use."""
    done = program("plan")
    assert done.returncode == 2
    assert "--filename" in done.stderr


MIXED = """\
apiVersion: gpu.dra-driver.dev/v1alpha1
kind: Machine
name: n
gpus:
- vendor: nvidia
  model: H100-SXM5-80GB
  count: 2
- vendor: nvidia
  model: A100-SXM4-40GB
  mode: mig
  instances:
  - profile: 3g.20gb
    start: 4
- vendor: amd
  model: MI300X
"""


@pytest.fixture
def mixed(tmp_path: Path) -> str:
    """A machine with a bit of everything."""
    file = tmp_path / "machine.yaml"
    file.write_text(MIXED)
    return str(file)


def test_gather_prints_a_profile_of_what_is_there(
    program: Program, mixed: str, tmp_path: Path
) -> None:
    """What was simulated from a profile is gathered as that profile: models, modes and instances of both vendors."""
    done = program("gather", machine=mixed)
    assert (done.returncode, done.stderr) == (0, "")
    assert yaml.safe_load(done.stdout) == yaml.safe_load(MIXED)
    again = tmp_path / "again.yaml"
    again.write_text(done.stdout)
    assert program("gather", machine=str(again)).stdout == done.stdout


def test_plan_of_a_virtual_machine_s_claim(
    program: Program, claim_file: Callable[..., str], tmp_path: Path
) -> None:
    """Where virtual machines may have GPUs the hand-over is announced, and none is made; elsewhere there is no such device."""
    file = claim_file("gpu-0000-1b-00-0-vfio")
    done = program("plan", "-f", file, passthrough="offer")
    assert done.stdout.splitlines()[-1] == "  1. GPU 0000:1b:00.0: give it to vfio-pci"
    assert not (tmp_path / "hardware").exists()
    refused = program("plan", "-f", file)
    assert refused.returncode == 1
    assert "gpu-0000-1b-00-0-vfio" in refused.stderr


def test_gather_sees_the_hardware_as_it_is_now(
    program: Program, worked: Worked, new_claim: NewClaim, decode: Callable[[JsonObject], Any]
) -> None:
    """Modes and instances that came since the machine was delivered are in the profile; half an instance is a note."""
    record = plan_prepare(worked.state.snapshot(decode(new_claim(SLICE))))
    identities = [worked.backend.partition(step.change) for step in record.steps[:2]]
    before = worked.files()
    half = program("gather")
    assert half.stderr == (
        "note: GPU 0000:1b:00.0 has instances [('1g.10gb', 0, False)], and [] when simulated\n"
    )
    assert worked.files() == before
    change = record.steps[2].change
    assert isinstance(change, CreateStage)
    worked.backend.partition(replace(change, parent=identities[-1]))
    done = program("gather")
    assert done.stderr == ""
    assert yaml.safe_load(done.stdout)["gpus"] == [
        {
            "vendor": "nvidia",
            "model": "H100-SXM5-80GB",
            "mode": "mig",
            "instances": [{"profile": "1g.10gb", "start": 0}],
        },
        {"vendor": "nvidia", "model": "H100-SXM5-80GB", "count": 7},
    ]


def test_gather_says_what_it_leaves_out(program: Program, tmp_path: Path) -> None:
    """A GPU that cannot be used is no part of the profile, and somebody should know."""
    machine = tmp_path / "machine.yaml"
    machine.write_text(f"{MIXED}- vendor: amd\n  model: MI300X\n  mode: CPX\n")
    done = program("gather", machine=str(machine))
    assert done.returncode == 0
    [line] = done.stderr.splitlines()
    assert line.startswith("note: GPU 0000:26:00.0 is left out: ")
    assert yaml.safe_load(done.stdout) == yaml.safe_load(MIXED)


def test_gather_without_gpus_is_an_error(program: Program, tmp_path: Path) -> None:
    """A profile of nothing would be none."""
    done = program("gather", machine=None, host_root=str(tmp_path))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: node n has no GPU to describe: no GPU driver is loaded\n"


def test_gather_says_which_gpus_are_not_well(program: Program, tmp_path: Path) -> None:
    """Beside the profile, which is the same as without; the GPU is named, with what to do."""
    well = program("gather")
    folder = tmp_path / "hardware" / "nvidia"
    folder.mkdir(parents=True)
    set_faults(folder, {"0000:43:00.0": {"fields": {"REMAPPED_FAILURE": 1}}})
    sick = program("gather")
    assert (sick.returncode, sick.stdout) == (0, well.stdout)
    note = "note: GPU 0000:43:00.0 is not well: a bad memory row could not be remapped; replace the GPU"
    assert sick.stderr.splitlines() == [*well.stderr.splitlines(), note]
