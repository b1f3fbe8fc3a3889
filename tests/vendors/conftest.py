"""What several tests of vendors' hardware stand on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.vendors.vfio_host import Host, machine


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """Two GPUs behind an IOMMU, with their own driver."""
    return Host(tmp_path, machine())
