"""Which claims the pods of this node use, as the kubelet tells it (k8s.io/kubelet podresources/v1)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import grpc.aio

from dra_driver.model.errors import KubeletUnavailable
from dra_driver.wire.podresources_v1 import api_pb2, api_pb2_grpc

_TIMEOUT_S = 5.0
_RECEIVE_LIMIT_BYTES = 16 << 20  # every container of the node, with all its CPUs and devices


async def pods_by_claim(socket: Path) -> Mapping[tuple[str, str], frozenset[str]]:
    """The pods by namespace and name of each claim that their containers use; KubeletUnavailable if the kubelet does not say.

    A claim without devices is one that is still to be prepared: it may have the name of one that is gone, and wait for it.
    """
    options = [("grpc.max_receive_message_length", _RECEIVE_LIMIT_BYTES)]
    async with grpc.aio.insecure_channel(f"unix:{socket}", options) as channel:
        try:
            answer = await api_pb2_grpc.PodResourcesListerStub(channel).List(
                api_pb2.ListPodResourcesRequest(), timeout=_TIMEOUT_S
            )
        except grpc.aio.AioRpcError as error:
            raise KubeletUnavailable(
                f"the kubelet does not say at {socket} which claims its pods use ({error.code().name}: {error.details()}); "
                "mount its pod-resources folder, and leave the gate KubeletPodResourcesDynamicResources on"
            ) from error
    pods: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for pod in answer.pod_resources:
        for container in pod.containers:
            for claim in container.dynamic_resources:
                if claim.claim_resources:
                    pods[claim.claim_namespace, claim.claim_name].add(pod.name)
    return {claim: frozenset(names) for claim, names in pods.items()}
