"""Our driver's slices of this node, in the API server: read, written and deleted one at a time, every write fenced."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import structlog

from dra_driver.kube.codec import slice_from_json, slice_to_json
from dra_driver.model.errors import Conflict, DraError, NotFound, SliceNameTaken
from dra_driver.model.kinds import RESOURCE_SLICE
from dra_driver.model.names import DRIVER_NAME
from dra_driver.model.slices import ResourceSlice
from dra_driver.ports import JsonObject, KubeApi
from kubelet_plugin.metrics import PluginMetrics
from kubelet_plugin.node_object import NodeObject

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSlice:
    """A slice as it is stored. `value` is None for one that cannot be read, which is to be written anew."""

    raw: JsonObject
    value: ResourceSlice | None

    @property
    def name(self) -> str:
        """The object's name."""
        return str(self.raw["metadata"]["name"])

    @property
    def annotations(self) -> Mapping[str, str]:
        """The object's annotations."""
        return self.raw["metadata"].get("annotations") or {}


class SliceStore:
    """Nothing is remembered from one `read` to the next, so nothing can be out of date."""

    def __init__(self, api: KubeApi, node: NodeObject, metrics: PluginMetrics) -> None:
        self._api = api
        self._metrics = metrics
        self._node = node
        self._owner: JsonObject | None = None

    async def read(self) -> dict[str, StoredSlice]:
        """All of them by name, read consistently."""
        self._owner = None
        selector = f"spec.nodeName={self._node.name},spec.driver={DRIVER_NAME}"
        listing = await self._api.list(RESOURCE_SLICE, selectors={"fieldSelector": selector})
        stored = (StoredSlice(raw=raw, value=_readable(raw)) for raw in listing.items)
        return {item.name: item for item in stored}

    async def put(
        self, wanted: ResourceSlice, annotations: Mapping[str, str], stored: StoredSlice | None
    ) -> ResourceSlice:
        """What the API server made of it. `stored` is what it replaces, None for a new one.

        Conflict or NotFound: it is not as it was read. SliceNameTaken: the name is an object's that is not ours.
        """
        self._owner = self._owner or await self._node.reference()
        body = slice_to_json(wanted)
        body["metadata"]["ownerReferences"] = [self._owner | {"controller": True}]
        body["metadata"]["annotations"] = dict(annotations)
        if stored is None:
            answer = await self._create(wanted.name, body)
            self._metrics.slice_write("create")
        else:
            body["metadata"]["resourceVersion"] = stored.raw["metadata"]["resourceVersion"]
            answer = await self._api.replace(RESOURCE_SLICE, body)
            self._metrics.slice_write("replace")
        return slice_from_json(answer)

    async def delete(self, stored: StoredSlice) -> bool:
        """Delete this very object; False if it was gone, or another one had its name."""
        preconditions = {"uid": stored.raw["metadata"]["uid"]}
        try:
            await self._api.delete(RESOURCE_SLICE, stored.name, preconditions=preconditions)
        except (NotFound, Conflict):
            return False
        self._metrics.slice_write("delete")
        return True

    async def _create(self, name: str, body: JsonObject) -> JsonObject:
        try:
            return await self._api.create(RESOURCE_SLICE, body)
        except Conflict as conflict:
            spec = (await self._api.get(RESOURCE_SLICE, name))["spec"]
            place = (spec["driver"], spec.get("nodeName"))
            if place == (DRIVER_NAME, self._node.name):
                raise
            raise SliceNameTaken(name, driver=place[0], node=place[1]) from conflict


def _readable(raw: JsonObject) -> ResourceSlice | None:
    try:
        return slice_from_json(raw)
    except DraError as error:
        log.warning(
            "a stored slice cannot be read and is written anew",
            name=raw["metadata"]["name"],
            error=str(error),
        )
        return None
