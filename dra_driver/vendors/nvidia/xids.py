"""What each XID means for the GPU, as data: used where the driver itself does not say what is to be done.

Numbers and meanings follow NVIDIA's catalogue (docs.nvidia.com/deploy/xid-errors). An application's own error is no ailment of the GPU.
"""

from __future__ import annotations

from types import MappingProxyType

from dra_driver.model.health import Severity

APPLICATION_XIDS = frozenset({8, 13, 31, 32, 43, 45, 68, 69, 109, 137})
"""Exceptions and faults that a program causes, in its peer's memory too, and what ends it or follows from its end."""

_RESET, _REBOOT, _WATCH = "reset the GPU", "reboot the node", "watch it"

_BROKEN = {
    38: ("driver firmware error", _RESET),
    46: ("the GPU stopped processing", _RESET),
    48: ("memory error that ECC cannot correct", _RESET),
    54: ("auxiliary power is not connected", "check the power cables"),
    61: ("internal micro-controller breakpoint", _RESET),
    62: ("internal micro-controller halt", _RESET),
    64: ("bad memory could not be taken out of use", "replace the GPU if a reset does not help"),
    74: ("NVLink error", _RESET),
    79: ("the GPU has fallen off the bus", _REBOOT),
    95: ("memory error that could not be contained", _RESET),
    110: ("security fault", _RESET),
    119: ("the GPU's system processor does not answer", _RESET),
    120: ("error of the GPU's system processor", _RESET),
    121: ("error of the chip-to-chip link", _RESET),
    136: ("links could not be trained", _RESET),
    140: ("memory error that ECC could not recover", _RESET),
    143: ("the GPU could not be initialised", _RESET),
    145: ("fatal NVLink error", _RESET),
    149: ("NVLink error in the network layer", _RESET),
    151: ("key rotation of the GPU failed", _RESET),
    155: ("an NVLink has gone down", _RESET),
    157: ("a bad part could not be taken out of use", "replace the GPU if a reset does not help"),
    158: ("the GPU timed out for good", _RESET),
    161: ("a bad memory channel is still in use", "replace the GPU if a reset does not help"),
}
_DEGRADED = {
    63: ("bad memory is taken out of use", "reset the GPU when it is idle"),
    78: ("a virtual GPU on it could not be started", _WATCH),
    92: ("many memory errors that ECC corrected", _WATCH),
    94: ("memory error that was contained", "its program must be restarted"),
    154: ("the driver asks for another recovery action", _WATCH),
    156: ("a bad part is taken out of use", "reset the GPU when it is idle"),
    160: ("a memory channel is taken out of use", "reset the GPU when it is idle"),
}
XIDS = MappingProxyType(
    {xid: (Severity.BROKEN, *words) for xid, words in _BROKEN.items()}
    | {xid: (Severity.DEGRADED, *words) for xid, words in _DEGRADED.items()}
)
"""Severity, meaning and remedy."""

UNKNOWN_XID = (Severity.DEGRADED, "an error that this release does not know", _WATCH)
