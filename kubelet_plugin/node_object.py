"""The Node that the plugin runs on, as the API knows it."""

from __future__ import annotations

from dra_driver.model.kinds import NODE
from dra_driver.model.reasons import REASONS, Reason
from dra_driver.ports import JsonObject, KubeApi, Recorder


class NodeObject:
    """Read anew at each use: what is owned by a former Node of this name would be collected at once."""

    def __init__(self, api: KubeApi, name: str, recorder: Recorder) -> None:
        self.name = name
        self._api = api
        self._recorder = recorder

    async def read(self) -> JsonObject:
        """All of it."""
        return await self._api.get(NODE, self.name)

    async def reference(self) -> JsonObject:
        """What owners and Events are named by."""
        metadata = (await self.read())["metadata"]
        return {
            "apiVersion": NODE.api_version,
            "kind": NODE.kind,
            "name": metadata["name"],
            "uid": metadata["uid"],
        }

    async def tell(self, reason: Reason, message: str) -> None:
        """An Event on it, of the reason's own level."""
        self._recorder.event(
            await self.reference(), level=REASONS[reason].level, reason=reason, message=message
        )

    async def warn(self, reason: Reason, message: str) -> None:
        """A warning Event on it."""
        self._recorder.event(
            await self.reference(), level="Warning", reason=reason, message=message
        )
