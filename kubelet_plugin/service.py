"""The DRA service that the kubelet calls (k8s.io/kubelet dra/v1 and dra/v1beta1): decode, ask `ClaimCalls`, encode."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import grpc
import grpc.aio
import structlog
from structlog.contextvars import bound_contextvars

from dra_driver.model.claim import ClaimRef
from dra_driver.model.errors import DraError
from dra_driver.model.names import checked_claim_uid
from dra_driver.model.record import PreparedDevice
from dra_driver.wire.dra_v1 import api_pb2, api_pb2_grpc
from dra_driver.wire.dra_v1beta1 import api_pb2 as v1beta1_pb2
from kubelet_plugin.metric_families import Operation
from kubelet_plugin.telemetry import Telemetry

CLAIMS_AT_ONCE = 64
"""Of one call; a kubelet never splits the claims of a pod, so the others take their turn instead of being refused."""

_Answer = TypeVar("_Answer")
_log = structlog.get_logger()


class ClaimCalls(Protocol):
    """What the service needs of the plugin. Both methods raise DraError, and are called for different claims at once.

    A client that gives up, or whose deadline passes, cancels the call: what must not be left half done is shielded by
    whoever implements this.
    """

    async def prepare(
        self, claim: ClaimRef, *, deadline: float | None
    ) -> tuple[PreparedDevice, ...]:
        """The claim's devices, usable now; the same again for a claim prepared before. `deadline` is in the loop's time."""

    async def unprepare(self, claim: ClaimRef) -> None:
        """The claim holds nothing any more; unknown claims are fine."""

    async def finish_calls(self) -> None:
        """Return when no claim is being worked on, also for callers that have given up."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What the kubelet is told about a claim that failed: `<Reason>: <message>`."""

    text: str


class DraService(api_pb2_grpc.DRAPluginServicer):
    """Every claim of a call gets its own answer: none cancels or fails another.

    One implementation for both versions: v1beta1 is v1 less `share_id`, which its readers skip as they skip any field that
    they do not know.
    """

    def __init__(self, claims: ClaimCalls, telemetry: Telemetry) -> None:
        self._claims = claims
        self._telemetry = telemetry
        self._calls: set[asyncio.Task[Any]] = set()

    async def finish_calls(self) -> None:
        """Return when every call has been answered, and nothing is left of those whose callers have given up."""
        while True:
            await self._claims.finish_calls()
            if not self._calls:
                return
            await asyncio.wait(self._calls)

    def add_to(self, server: grpc.aio.Server) -> None:
        """Serve both versions on this server."""
        prepare = grpc.unary_unary_rpc_method_handler(
            self.NodePrepareResources,
            request_deserializer=api_pb2.NodePrepareResourcesRequest.FromString,
            response_serializer=api_pb2.NodePrepareResourcesResponse.SerializeToString,
        )
        unprepare = grpc.unary_unary_rpc_method_handler(
            self.NodeUnprepareResources,
            request_deserializer=api_pb2.NodeUnprepareResourcesRequest.FromString,
            response_serializer=api_pb2.NodeUnprepareResourcesResponse.SerializeToString,
        )
        methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "NodePrepareResources": prepare,
            "NodeUnprepareResources": unprepare,
        }
        for file in (api_pb2.DESCRIPTOR, v1beta1_pb2.DESCRIPTOR):
            name = file.services_by_name["DRAPlugin"].full_name
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, methods),))

    async def NodePrepareResources(  # noqa: N802 - the contract's name
        self,
        request: api_pb2.NodePrepareResourcesRequest,
        context: grpc.aio.ServicerContext[
            api_pb2.NodePrepareResourcesRequest, api_pb2.NodePrepareResourcesResponse
        ],
    ) -> api_pb2.NodePrepareResourcesResponse:
        """Devices, or an error, for each claim."""
        remaining_s = context.time_remaining()
        deadline = None if remaining_s is None else asyncio.get_running_loop().time() + remaining_s
        answers = await self._answer_each(
            request.claims, "prepare", lambda claim: self._claims.prepare(claim, deadline=deadline)
        )
        return api_pb2.NodePrepareResourcesResponse(
            claims={uid: _prepare_message(answer) for uid, answer in answers.items()}
        )

    async def NodeUnprepareResources(  # noqa: N802 - the contract's name
        self,
        request: api_pb2.NodeUnprepareResourcesRequest,
        context: grpc.aio.ServicerContext[  # noqa: ARG002
            api_pb2.NodeUnprepareResourcesRequest, api_pb2.NodeUnprepareResourcesResponse
        ],
    ) -> api_pb2.NodeUnprepareResourcesResponse:
        """Nothing, or an error, for each claim."""
        answers = await self._answer_each(request.claims, "unprepare", self._claims.unprepare)
        return api_pb2.NodeUnprepareResourcesResponse(
            claims={
                uid: api_pb2.NodeUnprepareResourceResponse(error=answer.text if answer else "")
                for uid, answer in answers.items()
            }
        )

    async def _answer_each(
        self,
        claims: Sequence[api_pb2.Claim],
        operation: Operation,
        work: Callable[[ClaimRef], Awaitable[_Answer]],
    ) -> dict[str, _Answer | Failure]:
        self._note_call()
        turns = asyncio.Semaphore(CLAIMS_AT_ONCE)

        async def in_turn(claim: api_pb2.Claim) -> _Answer | Failure:
            async with turns:
                return await self._answer(claim, operation, work)

        answers = await asyncio.gather(*map(in_turn, claims), return_exceptions=True)
        return {
            # What is left to be an exception is a cancellation of shared work that this claim waited for.
            claim.uid: Failure("InternalError: interrupted")
            if isinstance(answer, BaseException)
            else answer
            for claim, answer in zip(claims, answers, strict=True)
        }

    def _note_call(self) -> None:
        """Each call has a task of its own, which gRPC makes and which ends when the answer has been sent."""
        task = asyncio.current_task()
        assert task is not None
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    async def _answer(
        self,
        claim: api_pb2.Claim,
        operation: Operation,
        work: Callable[[ClaimRef], Awaitable[_Answer]],
    ) -> _Answer | Failure:
        """The claim's answer; whatever happens on the way is logged under one `op`, and nothing escapes but a cancellation."""
        ref = ClaimRef(namespace=claim.namespace, name=claim.name, uid=claim.uid)
        with bound_contextvars(op=secrets.token_hex(4), claim=str(ref), claim_uid=ref.uid):
            try:
                with self._telemetry.call(operation, ref):
                    checked_claim_uid(ref.uid)
                    answer = await work(ref)
            except DraError as error:
                _log.warning(f"{operation} failed", reason=error.reason, error=str(error))
                return Failure(f"{error.reason}: {error}")
            except Exception as error:  # noqa: BLE001 - logged; one claim's bug is no reason to drop the others
                _log.exception(f"{operation} met a bug")
                return Failure(f"InternalError: {type(error).__name__}; see this node's plugin log")
            _log.debug(f"{operation} done")
            return answer


def _prepare_message(
    answer: tuple[PreparedDevice, ...] | Failure,
) -> api_pb2.NodePrepareResourceResponse:
    if isinstance(answer, Failure):
        return api_pb2.NodePrepareResourceResponse(error=answer.text)
    return api_pb2.NodePrepareResourceResponse(devices=map(_device_message, answer))


def _device_message(device: PreparedDevice) -> api_pb2.Device:
    return api_pb2.Device(
        request_names=device.requests,
        pool_name=device.pool,
        device_name=device.device,
        cdi_device_ids=device.cdi_ids,
        share_id=device.share_id,
    )
