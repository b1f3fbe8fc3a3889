import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dra_driver.model import names
from dra_driver.model.device import PartitionProfile, Placement, Vendor
from dra_driver.model.errors import NameInvalid

UID = "8c3b1f5e-0f5c-4a5e-9d36-0b7a3d1e2f4a"
PCI = "0000:3b:00.0"
# Every spelling that NVIDIA's driver gives to a profile of A30, A100, H100, H200 or B200, and AMD's modes.
PROFILES = (
    *("1g.5gb", "1g.5gb+me", "1g.10gb", "1g.10gb+me", "1g.20gb", "2g.10gb", "2g.20gb", "3g.20gb"),
    *("3g.40gb", "4g.20gb", "4g.40gb", "7g.40gb", "7g.80gb", "1g.6gb", "1g.6gb+me", "2g.12gb"),
    *("2g.12gb+me", "4g.24gb", "1g.12gb", "1g.12gb+me", "1g.24gb", "2g.24gb", "3g.48gb", "4g.48gb"),
    *("7g.96gb", "1g.18gb", "1g.18gb+me", "1g.35gb", "2g.35gb", "3g.71gb", "4g.71gb", "7g.141gb"),
    *("1g.23gb", "1g.23gb+me", "1g.45gb", "2g.45gb", "3g.90gb", "4g.90gb", "7g.180gb"),
    *("1g.23gb+me.all", "1g.23gb-me", "2g.45gb-me", "1g.24gb+gfx", "1g.24gb+me.all", "1g.24gb-me"),
)
PCI_ADDRESSES = st.builds(
    "{:04x}:{:02x}:{:02x}.{:x}".format,
    st.integers(0, 0xFFFF),
    st.integers(0, 0xFF),
    st.integers(0, 0x1F),
    st.integers(0, 7),
)


def profile(name: str, mode: str = "mig") -> PartitionProfile:
    return PartitionProfile(
        name=name, mode=mode, memory_bytes=0, compute_units=0, placements=(), consumes={}, stages=()
    )


def test_names_of_devices() -> None:
    """The names that DESIGN promises, so that nothing that people write into manifests changes by accident."""
    assert names.gpu_name(PCI) == "gpu-0000-3b-00-0"
    assert names.monitor_name(PCI) == "gpu-0000-3b-00-0-monitor"
    partition = names.partition_name(PCI, profile("1g.10gb"), Placement(0, 1))
    assert partition == "gpu-0000-3b-00-0-mig-1g-10gb-0"
    with_media = names.partition_name(PCI, profile("1g.10gb+me"), Placement(6, 1))
    assert with_media == "gpu-0000-3b-00-0-mig-1g-10gb-me-6"
    without_media = names.partition_name(PCI, profile("1g.23gb-me"), Placement(6, 1))
    assert without_media == "gpu-0000-3b-00-0-mig-1g-23gb-no-me-6"
    assert names.pool_name("node-1", Vendor.AMD) == "node-1/amd"


def test_names_are_unique_on_a_node() -> None:
    """No two (GPU, profile, start) of any model share a name, nor with a GPU or its monitor; all are DNS labels."""
    addresses = (PCI, "0000:3b:00.1", "0000:3b:10.0", "0001:3b:00.0")
    made = [
        names.partition_name(address, profile(name), Placement(start, 1))
        for address, name, start in itertools.product(addresses, PROFILES, range(12))
    ]
    made += [names.gpu_name(address) for address in addresses]
    made += [names.monitor_name(address) for address in addresses]
    assert len(made) == len(set(made))
    assert all(names.is_dns_label(name) for name in made)


@given(addresses=st.lists(PCI_ADDRESSES, unique=True, min_size=2, max_size=2))
def test_gpu_names_are_unique(addresses: list[str]) -> None:
    """Different PCI addresses give different names."""
    assert names.gpu_name(addresses[0]) != names.gpu_name(addresses[1])


@pytest.mark.parametrize("odd", ["0000:3B:00.0", "0000:3b:00.0/..", "x" * 60, "0000:3b:00.0\n"])
def test_odd_hardware_is_refused_by_name(odd: str) -> None:
    """An address that would make no DNS label is refused, and the message shows what came out."""
    with pytest.raises(NameInvalid, match=r"gpu-.*hardware"):
        names.gpu_name(odd)


def test_cdi_ids() -> None:
    """A CDI device is named by claim and device, and by share where one device is shared twice."""
    assert names.cdi_device_id(UID, "gpu-0") == f"gpu.dra-driver.dev/claim={UID}-gpu-0"
    assert names.cdi_device_name(UID, "gpu-0", "s1") == f"{UID}-gpu-0-s1"


@pytest.mark.parametrize("uid", ["", "..", "a/b", UID.upper(), UID + "\n", UID + "/x", UID[:-1]])
def test_only_a_uuid_becomes_a_path(uid: str) -> None:
    """What is not a lower-case UUID is refused before any path is made of it."""
    with pytest.raises(NameInvalid, match="not a lower-case UUID"):
        names.checked_claim_uid(uid)


def test_a_uuid_passes() -> None:
    """The UIDs that the API server hands out pass unchanged."""
    assert names.checked_claim_uid(UID) == UID


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("model", True),
        ("_x9", True),
        ("a" * 32, True),
        ("a" * 33, False),
        ("9a", False),
        ("a-b", False),
        ("", False),
        ("resource.kubernetes.io/pcieRoot", True),
        ("gpu.dra-driver.dev/uuid", True),
        ("/uuid", False),
        ("a/b/c", False),
        ("Upper.dev/uuid", False),
        (f"{'d' * 63}/uuid", True),
        (f"{'d' * 64}/uuid", False),
        ("model\n", False),
    ],
)
def test_qualified_names(text: str, *, good: bool) -> None:
    """A C identifier of at most 32 characters, with a domain of at most 63 or without."""
    assert names.is_qualified_name(text) is good


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("node-1/nvidia", True),
        ("node.example.com/nvidia", True),
        ("node", True),
        ("node/", False),
        ("/nvidia", False),
        ("Node/nvidia", False),
        ("n" * 253, True),
        ("n" * 254, False),
    ],
)
def test_pool_names(text: str, *, good: bool) -> None:
    """DNS subdomains joined by slashes, 253 characters in all."""
    assert names.is_pool_name(text) is good


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("1.2.3", True),
        ("1.2.3-rc.1+build.5", True),
        ("0.0.0", True),
        ("1.2", False),
        ("01.2.3", False),
        ("1.2.3-01", False),
        ("v1.2.3", False),
        ("1.2.\u0663", False),
        ("1.2.3\n", False),
        (f"1.2.{'3' * 60}", True),
        (f"1.2.{'3' * 61}", False),
    ],
)
def test_semantic_versions(text: str, *, good: bool) -> None:
    """Semver 2.0.0 to the letter, in ASCII, at most 64 characters."""
    assert names.is_semver(text) is good


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("535.104.05", "535.104.5"),
        ("550.54", "550.54.0"),
        ("580", "580.0.0"),
        ("6.12.12", "6.12.12"),
        ("6.10.5.60200-1", "6.10.5"),
        ("5.18-2.el9", "5.18.0"),
        ("12.4 (release)", "12.4.0"),
        ("", None),
        ("unknown", None),
        ("\u0661.2.3", None),
    ],
)
def test_driver_versions_become_semantic(text: str, version: str | None) -> None:
    """The dotted number that a version begins with, three parts of it, without leading zeros."""
    assert names.normal_version(text) == version


@given(st.text(max_size=80))
def test_normal_versions_are_semantic(text: str) -> None:
    """Whatever a driver reports, the outcome is a strict semantic version or None."""
    version = names.normal_version(text)
    assert version is None or names.is_semver(version)
