"""What other processes of this node have recorded, taken over before anybody relies on it.

While this process is alone its memory is the truth, and to find that out costs next to nothing. Beside another one, and once after
it has gone, the journal is read first: a claim's own record by whoever works on the claim, all of them by whoever works on a GPU.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from dra_driver.model.errors import RecordError, VendorError
from dra_driver.ports import ClaimStore
from kubelet_plugin.instances import Instance
from kubelet_plugin.state import NodeState


class Company:
    """Make it before the records are loaded: what is loaded later is the truth if this process was alone by then."""

    def __init__(self, instance: Instance, state: NodeState, store: ClaimStore) -> None:
        self._instance = instance
        self._state = state
        self._store = store
        self._loaded = self._known = instance.peace()
        self._seen: dict[str, int | None] = {}
        self._working: set[str] = set()
        self._readers: dict[int, set[str]] = {}
        self._begun = self._applied = 0
        self._damaged: frozenset[str] = frozenset()
        self._unknown: frozenset[str] = frozenset()

    def peace(self) -> int | None:
        """The same number as long as no other process can have changed anything; None while one may."""
        return self._instance.peace()

    def up_to_date(self) -> bool:
        """Whether every record is known that another process can have written."""
        return self._is_current(self._known) and not self._unknown

    def accept_damage(self, uids: frozenset[str]) -> None:
        """These records were damaged when they were loaded: what is known of them is known, and others go on."""
        self._damaged = uids

    @contextmanager
    def working(self, uid: str) -> Iterator[None]:
        """Of this claim memory knows more than whatever is read meanwhile. The caller has the claim's lock."""
        self._working.add(uid)
        for ours in self._readers.values():
            ours.add(uid)
        try:
            yield
        finally:
            self._working.discard(uid)

    def learn_claim(self, uid: str) -> None:
        """The claim's record is what was last written. The caller is `working` on it.

        One that cannot be read is what it was; RecordError if it is not known here at all.
        """
        if self.up_to_date():
            return
        try:
            stored = self._store.read(uid)
        except RecordError:
            if uid not in self._state.records:
                raise
        else:
            self._state.take_over(uid, stored)

    async def learn_all(self) -> None:
        """So is every record that nobody here is working on."""
        if self.up_to_date():
            return
        peace = self.peace()
        self._begun += 1
        number = self._begun
        ours = self._readers[number] = set(self._working)
        try:
            stored, unreadable = await asyncio.to_thread(self._store.read_all)
        finally:
            del self._readers[number]
        if number > self._applied:  # else one that began later has told more already
            self._applied, self._known = number, peace
            self._unknown = unreadable - self._state.records.keys() - self._damaged
            self._state.refresh(stored, kept=ours | unreadable)

    def require_all(self) -> None:
        """Nothing may be given out while it is not known what another process has given out: VendorError, to be waited for."""
        if self._unknown:
            raise VendorError(
                f"the record of claim UID {min(self._unknown)}, which another process of this driver wrote, cannot be read, "
                "so it is not known which device it holds; if that stays so, restart the plugin",
                retryable=True,
            )

    def is_strange(self, gpu: str) -> bool:
        """Whether another process may have changed the GPU since this one saw it. The caller has the GPU's lock."""
        return not self._is_current(self._seen.get(gpu, self._loaded))

    @contextmanager
    def seeing(self, gpu: str) -> Iterator[None]:
        """The GPU is looked at in the block, and was seen if that raises nothing."""
        peace = self.peace()
        yield
        self._seen[gpu] = peace

    def _is_current(self, since: int | None) -> bool:
        return since is not None and since == self.peace()
