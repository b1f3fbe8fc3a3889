"""JSON of resource.k8s.io/v1 to the model's values and back.

Readers ignore fields they do not know and raise Invalid, naming object and field, for what is malformed or refuses to be
ignored; a caller skips that object, so that one odd object never breaks a list. Writers leave out whatever is empty.
"""

from dra_driver.kube.codec.allocations import allocation_to_json
from dra_driver.kube.codec.claims import (
    allocated_claim_from_json,
    claim_from_json,
    class_from_json,
)
from dra_driver.kube.codec.slices import slice_from_json, slice_to_json

__all__ = [
    "allocated_claim_from_json",
    "allocation_to_json",
    "claim_from_json",
    "class_from_json",
    "slice_from_json",
    "slice_to_json",
]
