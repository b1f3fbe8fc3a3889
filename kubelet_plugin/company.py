"""What other processes of this node have recorded, taken over before anybody relies on it.

While this process is alone its memory is the truth, and to find that out costs next to nothing. Beside another one, and once after
it has gone, the journal is read first: a claim's own record by whoever works on the claim, all of them by whoever works on a GPU.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress

from dra_driver.model.errors import RecordError
from dra_driver.model.record import ClaimRecord
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

    def peace(self) -> int | None:
        """The same number as long as no other process can have changed anything; None while one may."""
        return self._instance.peace()

    def up_to_date(self) -> bool:
        """Whether every record is known that another process can have written."""
        return self._is_current(self._known)

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

    async def learn_claim(self, uid: str) -> None:
        """The claim's record is what was last written; a damaged one is what it was. The caller is `working` on it."""
        if self.up_to_date():
            return
        with suppress(RecordError):
            self._state.take_over(uid, await asyncio.to_thread(self._store.read, uid))

    async def learn_all(self) -> None:
        """So is every record that nobody here is working on."""
        if self.up_to_date():
            return
        peace = self.peace()
        self._begun += 1
        number = self._begun
        ours = self._readers[number] = set(self._working)
        try:
            stored, damaged = await asyncio.to_thread(self._read, frozenset(self._state.records))
        finally:
            del self._readers[number]
        if number > self._applied:  # else one that began later has told more already
            self._applied, self._known = number, peace
            self._state.refresh(stored, kept=ours | damaged)

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

    def _read(self, known: Collection[str]) -> tuple[Mapping[str, ClaimRecord], set[str]]:
        """All sound records, and which of the known claims have a damaged one."""
        stored = self._store.records()
        damaged = set()
        for uid in known - stored.keys():
            try:
                self._store.read(uid)
            except RecordError:
                damaged.add(uid)
        return stored, damaged
