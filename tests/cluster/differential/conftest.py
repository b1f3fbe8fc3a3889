"""A real scheduler to put cases to, and CEL for ours."""

from __future__ import annotations

import pytest

from dra_driver.kube.rest import RestApi
from dra_driver.model.kinds import NAMESPACE
from dra_driver.rules.selectors import CelMatcher
from tests.cluster.differential.trial import Trial


@pytest.fixture(scope="session")
def matcher() -> CelMatcher:
    """Remembers what it has compiled."""
    return CelMatcher()


@pytest.fixture
async def trial(api: RestApi, namespace: str) -> Trial:
    """Puts cases to the control plane's scheduler."""
    labels = {"resource.kubernetes.io/admin-access": "true"}
    await api.patch(NAMESPACE, namespace, {"metadata": {"labels": labels}})
    return Trial(api, namespace)
