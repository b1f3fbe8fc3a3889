"""Brings contenders together: each with fresh folders and an API server of its own, all with the same kubelets."""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from tests.bench.contender import Contender
from tests.bench.disk import MEMORY
from tests.bench.programs import Kubelet, running_api, running_kubelet
from tests.bench.recipes import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Arena:
    """`rounds` times everybody's turn comes, one after the other, so that a busy machine is busy for all of them.

    `serial_claims` are prepared in a round where it is one at a time. `sync_ms` is how long a sync takes on the modelled disk.
    """

    rounds: int
    serial_claims: int
    sync_ms: float = 0.0
    ours: Recipe
    peers: tuple[Recipe, ...]
    kubelet: Kubelet
    onlooker: Kubelet
    """Makes calls of its own while the other one is busy."""
    in_background: bool = False
    """Whether the API servers get only what CPU nobody else wants."""

    @asynccontextmanager
    async def aside(self) -> AsyncIterator[Arena]:
        """One whose kubelet and API servers are out of everybody's way, as if this machine were not theirs; the onlooker is not."""
        async with running_kubelet(in_background=True) as kubelet:
            yield replace(self, kubelet=kubelet, in_background=True)

    @asynccontextmanager
    async def contenders(self, *, on_disk: bool = False) -> AsyncIterator[list[Contender]]:
        """Ours and all peers, started; where this machine keeps temporary files, or, those that can be, on the modelled disk."""
        recipes, place = (self.ours, *self.peers), None
        if on_disk and self.sync_ms:
            slowed = (one.on_disk(self.sync_ms) for one in recipes)
            recipes, place = tuple(one for one in slowed if one), MEMORY
        async with AsyncExitStack() as stack:
            yield [await stack.enter_async_context(self.contender(one, place)) for one in recipes]

    @asynccontextmanager
    async def contender(
        self, recipe: Recipe, place: Path | None = None
    ) -> AsyncIterator[Contender]:
        """That one alone, started; its processes and folders are gone afterwards."""
        with _short_folder(place) as folder:
            async with running_api(in_background=self.in_background) as api:
                contender = Contender(recipe, folder, api, self.kubelet)
                try:
                    await contender.start()
                    yield contender
                finally:
                    await contender.stop(signal.SIGKILL)
                    await self.kubelet.ask(do="forget", registry=contender.registry)
                    await self.onlooker.ask(do="forget", registry=contender.registry)


@asynccontextmanager
async def two_kubelets() -> AsyncIterator[tuple[Kubelet, Kubelet]]:
    """The kubelets of an arena."""
    async with running_kubelet() as kubelet, running_kubelet() as onlooker:
        yield kubelet, onlooker


@contextmanager
def _short_folder(place: Path | None) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="dra-", dir=place))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
