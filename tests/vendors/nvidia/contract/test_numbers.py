"""Numbers and layouts that stand in our code or in the C library's header: they are those of NVIDIA's own binding."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from collections.abc import Iterator
from enum import IntEnum, IntFlag
from pathlib import Path

import pynvml
import pytest

from dra_driver.vendors.nvidia import sdk_health
from dra_driver.vendors.nvidia.nvml import Code
from dra_driver.vendors.nvidia.nvml_activity import ClockReason, GpmMetric
from dra_driver.vendors.nvidia.nvml_health import Field, RecoveryAction
from tests.vendors.nvidia import fake

_HEADER = Path(fake.__path__[0]) / "nvml.h"
_FIELDS = {
    Field.ECC_UNCORRECTED_VOLATILE: "ECC_DBE_VOL_TOTAL",
    Field.ECC_UNCORRECTED_AGGREGATE: "ECC_DBE_AGG_TOTAL",
    Field.RETIRED_PENDING: "RETIRED_PENDING",
    Field.REMAPPED_PENDING: "REMAPPED_PENDING",
    Field.REMAPPED_FAILURE: "REMAPPED_FAILURE",
    Field.RECOVERY_ACTION: "GET_GPU_RECOVERY_ACTION",
}
_CLOCKS = {
    ClockReason.SW_POWER_CAP: "SwPowerCap",
    ClockReason.SW_THERMAL_SLOWDOWN: "SwThermalSlowdown",
    ClockReason.HW_THERMAL_SLOWDOWN: "HwThermalSlowdown",
    ClockReason.HW_POWER_BRAKE: "HwPowerBrakeSlowdown",
}


def named() -> Iterator[tuple[str, int]]:
    """The binding's name for each number of ours."""
    yield "NVML_SUCCESS", Code.SUCCESS
    for prefix, numbers in (
        ("NVML_ERROR", [code for code in Code if code]),
        ("NVML_GPM_METRIC", list(GpmMetric)),
        ("NVML_GPU_RECOVERY_ACTION", list(RecoveryAction)),
    ):
        yield from ((f"{prefix}_{one.name}", one) for one in numbers)
    yield from ((f"NVML_FI_DEV_{name}", field) for field, name in _FIELDS.items())
    yield from ((f"nvmlClocksEventReason{name}", bit) for bit, name in _CLOCKS.items())
    yield "NVML_FI_DEV_NVLINK_GET_STATE", sdk_health._LINK_STATE
    yield "NVML_NVLINK_STATE_INACTIVE", sdk_health._LINK_DOWN
    yield "nvmlEventTypeXidCriticalError", sdk_health._XID_EVENT


@pytest.mark.parametrize(("name", "number"), [*named()])
def test_a_number_of_ours_is_nvmls(name: str, number: int) -> None:
    """By its name there."""
    assert getattr(pynvml, name) == number


@pytest.mark.parametrize("numbers", [Field, ClockReason])
def test_every_number_of_ours_is_compared(numbers: type[IntEnum | IntFlag]) -> None:
    """None that is added is forgotten here."""
    assert {*numbers} - {0} <= {*_FIELDS, *_CLOCKS}


def test_numbers_of_the_c_header_are_nvmls() -> None:
    """By their names, all of them."""
    written = dict(re.findall(r"^\s+(NVML_\w+) = (\d+),", _HEADER.read_text(), re.MULTILINE))
    assert "NVML_FI_DEV_NVLINK_GET_STATE" in written
    assert written == {name: str(getattr(pynvml, name)) for name in written}


def test_structures_of_the_c_header_have_nvmls_layout(tmp_path: Path) -> None:
    """Each member stands where the binding has it, as the compiler says; a list of open length counts up to its begin."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed, and says where members stand")
    expected = dict(layouts())
    lines = [
        f'printf("{name} %zu\\n", {"offsetof" if "." in name else "sizeof"}({name.replace(".", ", ")}));'
        for name in expected
    ]
    source, program = tmp_path / "layout.c", tmp_path / "layout"
    source.write_text(
        f'#include "{_HEADER}"\n#include <stddef.h>\n#include <stdio.h>\n'
        "int main(void)\n{\n" + "\n".join(lines) + "\n}\n"
    )
    subprocess.run(["gcc", source, "-o", program], check=True)
    said = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    assert {name: int(where) for name, where in map(str.split, said.splitlines())} == expected


def layouts() -> Iterator[tuple[str, int]]:
    """Sizes by structure and offsets by member (`nvmlMemory_t.used`), of those that header and binding have."""
    for name in re.findall(r"^\} (nvml\w+_t);", _HEADER.read_text(), re.MULTILINE):
        structure = getattr(pynvml, f"c_{name}", None) or getattr(pynvml, name, None)
        if not (isinstance(structure, type) and issubclass(structure, ctypes.Structure)):
            continue
        members = [field[0] for field in structure._fields_]
        yield from ((f"{name}.{member}", getattr(structure, member).offset) for member in members)
        if name != "nvmlGpmMetricsGet_t":
            yield name, ctypes.sizeof(structure)
