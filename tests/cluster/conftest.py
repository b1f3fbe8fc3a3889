"""A real control plane per Kubernetes minor, shared by all tests that ask for one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from dra_driver.kube.rest import RestApi
from dra_driver.model.kinds import NAMESPACE
from tests.cluster.controlplane import ControlPlane, running_control_plane
from tests.cluster.programs import MINORS
from tests.cluster.waiting import SERVICE_ACCOUNT, eventually

REAL = [
    pytest.param(minor, marks=[pytest.mark.cluster, pytest.mark.timeout(300)]) for minor in MINORS
]
"""A test on each may take minutes: the first one also starts the control plane, and all that is waited for has a time of its own."""


@pytest.fixture(scope="session", params=REAL)
def control_plane(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ControlPlane]:
    """A control plane with the version's own feature gates."""
    root = tmp_path_factory.mktemp(f"kubernetes-{request.param}")
    with running_control_plane(request.param, root) as plane:
        yield plane


@pytest.fixture
async def api(control_plane: ControlPlane) -> AsyncIterator[RestApi]:
    """The administrator's client."""
    async with RestApi(control_plane.endpoint, component="tests") as api:
        yield api


@pytest.fixture
async def namespace(api: RestApi) -> AsyncIterator[str]:
    """A namespace of the test's own; it goes away afterwards, with what is in it."""
    body = {"metadata": {"generateName": "test-"}}
    created = await api.create(NAMESPACE, body)
    name: str = created["metadata"]["name"]

    async def has_service_account() -> bool:  # pods are refused until then
        return bool((await api.list(SERVICE_ACCOUNT, namespace=name)).items)

    await eventually(has_service_account)
    yield name
    await api.delete(NAMESPACE, name)
