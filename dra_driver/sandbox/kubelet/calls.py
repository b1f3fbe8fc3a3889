"""One call to a driver, and all that the kubelet checks about its answer. Everything raises ClaimError."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dra_driver.model.claim import ClaimRef
from dra_driver.model.errors import ClaimError
from dra_driver.model.record import PreparedDevice
from dra_driver.sandbox.kubelet.endpoint import Endpoint
from dra_driver.wire.dra_v1 import api_pb2


async def prepare(
    endpoint: Endpoint, claims: Sequence[ClaimRef], *, timeout_s: float
) -> dict[str, tuple[PreparedDevice, ...]]:
    """The claims' devices by claim UID, or an error if any claim failed."""
    request = api_pb2.NodePrepareResourcesRequest(claims=map(_claim_message, claims))
    response = await endpoint.prepare(request, timeout_s=timeout_s)
    errors = {uid: answer.error for uid, answer in response.claims.items()}
    _check("NodePrepareResources", claims, errors)
    return {uid: tuple(map(_device, response.claims[uid].devices)) for uid in errors}


async def unprepare(endpoint: Endpoint, claims: Sequence[ClaimRef], *, timeout_s: float) -> None:
    """The driver has let go of all claims, or an error if any failed."""
    request = api_pb2.NodeUnprepareResourcesRequest(claims=map(_claim_message, claims))
    response = await endpoint.unprepare(request, timeout_s=timeout_s)
    errors = {uid: answer.error for uid, answer in response.claims.items()}
    _check("NodeUnprepareResources", claims, errors)


def _check(call: str, claims: Sequence[ClaimRef], errors: Mapping[str, str]) -> None:
    asked = {claim.uid: claim for claim in claims}
    for uid, error in errors.items():
        if uid not in asked:
            raise ClaimError(f"{call} answered for claim UID {uid!r}, which nobody asked about")
        if error:
            raise ClaimError(f"{call} failed for ResourceClaim {asked[uid]}: {error}")
    if skipped := asked.keys() - errors.keys():
        raise ClaimError(f"{call} skipped {len(skipped)} ResourceClaims")


def _claim_message(claim: ClaimRef) -> api_pb2.Claim:
    return api_pb2.Claim(namespace=claim.namespace, name=claim.name, uid=claim.uid)


def _device(message: api_pb2.Device) -> PreparedDevice:
    return PreparedDevice(
        requests=tuple(message.request_names),
        pool=message.pool_name,
        device=message.device_name,
        cdi_ids=tuple(message.cdi_device_ids),
        share_id=message.share_id if message.HasField("share_id") else None,
    )
