"""The control plane that the other tests rely on."""

from __future__ import annotations

import pytest

from dra_driver.kube.rest import RestApi
from dra_driver.model.errors import Forbidden
from dra_driver.model.kinds import POD, RESOURCE_SLICE
from tests.cluster.controlplane import ControlPlane


async def test_it_says_the_version_that_was_pinned(
    control_plane: ControlPlane, api: RestApi
) -> None:
    """A program without a version stamp would call itself v0.0.0 and switch the wrong gates."""
    assert await api.server_version() == control_plane.version


async def test_rights_are_checked(control_plane: ControlPlane, namespace: str) -> None:
    """Who has no rights may not even look: a test of rights on this control plane can fail."""
    async with RestApi(control_plane.endpoint_of("nobody"), component="tests") as nobody:
        with pytest.raises(Forbidden):
            await nobody.list(POD, namespace=namespace)
        with pytest.raises(Forbidden):
            await nobody.list(RESOURCE_SLICE)
