from itertools import product
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

import deviceclasses
from dra_driver.model.errors import InputError
from dra_driver.model.names import DRIVER_NAME
from dra_driver.model.slices import Device
from dra_driver.rules.selectors import CelMatcher

# What each class is for: vendors, type, sharing.
SHIPPED = {
    "gpu": ({"nvidia", "amd"}, "gpu", "exclusive"),
    "gpu-partition": ({"nvidia", "amd"}, "partition", "exclusive"),
    "gpu-timeslice": ({"nvidia", "amd"}, "gpu", "timeSlicing"),
    "gpu-mps": ({"nvidia", "amd"}, "gpu", "mps"),
    "gpu-monitor": ({"nvidia", "amd"}, "gpu", "monitor"),
    "gpu-passthrough": ({"nvidia", "amd"}, "passthrough", "exclusive"),
    "nvidia-gpu": ({"nvidia"}, "gpu", "exclusive"),
    "nvidia-mig": ({"nvidia"}, "partition", "exclusive"),
    "nvidia-mig-compute": ({"nvidia"}, "partition", "memory"),
    "amd-gpu": ({"amd"}, "gpu", "exclusive"),
    "amd-partition": ({"amd"}, "partition", "exclusive"),
}
DEVICES = tuple(
    Device(
        name=f"{vendor}-{kind}-{sharing}",
        attributes={"vendor": vendor, "type": kind, "sharing": sharing},
    )
    for vendor, kind, sharing in product(
        ("nvidia", "amd"),
        ("gpu", "partition", "passthrough"),
        ("exclusive", "memory", "timeSlicing", "mps", "monitor"),
    )
)
FOLDER = Path(deviceclasses.__file__).parent
PAGE = FOLDER.parent / "docs/user/classes.md"

every_class = pytest.mark.parametrize(
    "shipped", deviceclasses.load_all(), ids=lambda each: each["metadata"]["name"]
)


def expression(shipped: dict[str, Any]) -> str:
    (selector,) = shipped["spec"]["selectors"]
    text: str = selector["cel"]["expression"]
    return text


def test_all_promised_classes_are_shipped_under_their_names() -> None:
    """A class is named after its file, with our suffix, and classes come sorted by name."""
    names = [each["metadata"]["name"] for each in deviceclasses.load_all()]
    assert names == sorted(f"{name}.dra-driver.dev" for name in SHIPPED)
    assert {file.stem for file in FOLDER.glob("*.yaml")} == SHIPPED.keys()


def test_a_class_is_loaded_by_name() -> None:
    """One class can be had by its full name; a name that we do not ship is answered with those that we do."""
    assert deviceclasses.load("gpu.dra-driver.dev")["kind"] == "DeviceClass"
    with pytest.raises(InputError, match=r"'gpu' is not shipped; name one of amd-gpu\."):
        deviceclasses.load("gpu")


@every_class
@pytest.mark.parametrize("version", ["1.34", "1.35", "1.36", "1.37"])
def test_every_supported_api_server_accepts_it(shipped: dict[str, Any], version: str) -> None:
    """Each class passes the strict schema of each Kubernetes version from 1.34 on."""
    kubernetes_validate.validate(shipped, version, strict=True)


@every_class
def test_driver_comes_first_and_never_alone(shipped: dict[str, Any]) -> None:
    """Devices of other drivers are ruled out before their attributes are looked at, and ours by type and sharing."""
    driver, *others = expression(shipped).split(" && ")
    assert driver == 'device.driver == "gpu.dra-driver.dev"'
    attribute = 'device.attributes["gpu.dra-driver.dev"]'
    tested = [other.removeprefix(attribute).split(" == ")[0] for other in others]
    assert tested in ([".type", ".sharing"], [".vendor", ".type", ".sharing"])


@every_class
def test_says_for_whom_it_is(shipped: dict[str, Any]) -> None:
    """Each file opens with a comment, and each class is on the page about classes."""
    name = shipped["metadata"]["name"]
    file = FOLDER / f"{name.removesuffix('.dra-driver.dev')}.yaml"
    assert file.read_text().startswith("# ")
    assert f"`{name}`" in PAGE.read_text()


@every_class
def test_selects_what_it_is_for(shipped: dict[str, Any]) -> None:
    """Of all kinds of devices a class selects exactly those it promises."""
    name = shipped["metadata"]["name"].removesuffix(".dra-driver.dev")
    vendors, kind, sharing = SHIPPED[name]
    matcher = CelMatcher()
    selected = {
        device.name
        for device in DEVICES
        if matcher.matches([expression(shipped)], device, DRIVER_NAME)
    }
    assert selected == {f"{vendor}-{kind}-{sharing}" for vendor in vendors}


@every_class
def test_devices_of_other_drivers_are_passed_over(shipped: dict[str, Any]) -> None:
    """A device that lacks our attributes is not selected, and fails nobody's allocation."""
    device = Device(name="nic-0", attributes={"type": "gpu"})
    assert not CelMatcher().matches([expression(shipped)], device, "nic.example.com")
