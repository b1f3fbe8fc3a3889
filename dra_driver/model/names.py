"""Names: made here, in one place, and never taken apart again anywhere else.

A device's name comes from its PCI address and, for a partition, its profile and placement: the same after a reboot, unlike
minor numbers, and a DNS label. What a name stands for is looked up in the inventory, not parsed.
"""

from __future__ import annotations

import re

from dra_driver.model.device import PartitionProfile, Placement, Vendor
from dra_driver.model.errors import NameInvalid

DRIVER_NAME = "gpu.dra-driver.dev"
CDI_KIND = f"{DRIVER_NAME}/claim"
SHARED_CDI_KIND = f"{DRIVER_NAME}/driver"
CLAIM_UID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_DNS_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_C_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SEMVER = re.compile(
    r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)"
    r"(-((0|[1-9]\d*|\d*[A-Za-z-][0-9A-Za-z-]*)(\.(0|[1-9]\d*|\d*[A-Za-z-][0-9A-Za-z-]*))*))?"
    r"(\+[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?",
    re.ASCII,
)
_NUMBERS = re.compile(r"[0-9]{1,16}(\.[0-9]{1,16}){0,2}")


def is_dns_label(text: str) -> bool:
    """RFC 1123 label, at most 63 characters."""
    return _DNS_LABEL.fullmatch(text) is not None


def is_dns_subdomain(text: str, *, limit: int = 253) -> bool:
    """RFC 1123 subdomain."""
    return len(text) <= limit and _DNS_SUBDOMAIN.fullmatch(text) is not None


def is_qualified_name(text: str) -> bool:
    """An attribute or capacity name: `id` or `domain/id`, the domain at most 63 characters, the id at most 32."""
    domain, slash, identifier = text.rpartition("/")
    named = len(identifier) <= 32 and _C_IDENTIFIER.fullmatch(identifier) is not None
    return named and (not slash or is_dns_subdomain(domain, limit=63))


def is_pool_name(text: str) -> bool:
    """DNS subdomains joined by slashes, at most 253 characters."""
    return len(text) <= 253 and all(is_dns_subdomain(part) for part in text.split("/"))


def is_semver(text: str) -> bool:
    """Strict semantic version 2.0.0, at most 64 characters."""
    return len(text) <= 64 and _SEMVER.fullmatch(text) is not None


def normal_version(text: str) -> str | None:
    """The semantic version nearest to a driver's version (`535.104.05` gives `535.104.5`), or None."""
    numbers = _NUMBERS.match(text)
    if numbers is None:
        return None
    parts = numbers[0].split(".")
    return ".".join(str(int(part)) for part in (*parts, "0", "0")[:3])


def pool_name(node: str, vendor: Vendor) -> str:
    """`<node>/<vendor>`: unique over drivers, because allocator caches were once keyed by pool name alone."""
    return f"{node}/{vendor}"


def gpu_name(pci_address: str) -> str:
    """`0000:3b:00.0` gives `gpu-0000-3b-00-0`."""
    return _label(_stem(pci_address))


def is_device_of(pci_address: str, device: str) -> bool:
    """Whether the device is that GPU, or one of its forms."""
    stem = _stem(pci_address)
    return device == stem or device.startswith(f"{stem}-")


def partition_name(pci_address: str, profile: PartitionProfile, placement: Placement) -> str:
    """`gpu-0000-3b-00-0-mig-1g-10gb-me-6`: `+x` becomes `-x`, `-x` becomes `-no-x`, dots become dashes.

    A part of a partition has its number after the start: `gpu-0000-3b-00-0-mig-1c-3g-40gb-4-2`.
    """
    shape = profile.name.replace("-", "-no-").replace("+", "-").replace(".", "-")
    place = f"{placement.start}" if profile.whole is None else f"{placement.start}-{placement.part}"
    return _label(f"{gpu_name(pci_address)}-{profile.mode.lower()}-{shape.lower()}-{place}")


def monitor_name(pci_address: str) -> str:
    """The device through which monitoring looks at a GPU."""
    return _label(f"{gpu_name(pci_address)}-monitor")


def passthrough_name(pci_address: str) -> str:
    """The GPU as a virtual machine gets it."""
    return _label(f"{gpu_name(pci_address)}-vfio")


def device_variable(pci_address: str, part: str = "") -> str:
    """The environment variable that tells a container a device's UUID: no two devices of a node have the same one."""
    return "DRA_DEVICE_" + re.sub(r"[^A-Z0-9]", "_", f"{pci_address}{part}".upper())


def cdi_device_name(claim_uid: str, device: str, share_id: str | None = None) -> str:
    """The device's name inside its claim's CDI spec."""
    return "-".join(filter(None, (claim_uid, device, share_id)))


def cdi_device_id(claim_uid: str, device: str, share_id: str | None = None) -> str:
    """The fully qualified CDI device, as the kubelet hands it to the container runtime."""
    return f"{CDI_KIND}={cdi_device_name(claim_uid, device, share_id)}"


def shared_cdi_id(name: str) -> str:
    """The fully qualified CDI device of `SharedEdits`."""
    return f"{SHARED_CDI_KIND}={name}"


def checked_claim_uid(uid: str) -> str:
    """The UID, or NameInvalid: it becomes part of a path, so nothing but a UUID is let in."""
    if CLAIM_UID.fullmatch(uid) is None:
        raise NameInvalid(
            f"claim UID {uid!r} is not a lower-case UUID; the API server never hands out such a UID"
        )
    return uid


def _stem(pci_address: str) -> str:
    return f"gpu-{pci_address.replace(':', '-').replace('.', '-')}"


def _label(text: str) -> str:
    if not is_dns_label(text):
        raise NameInvalid(
            f"device name {text!r} is not a DNS label of at most 63 characters; the hardware reports an odd name"
        )
    return text
