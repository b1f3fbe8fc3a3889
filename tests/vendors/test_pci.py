"""Which devices a kernel driver has, and how they are numbered."""

from __future__ import annotations

from pathlib import Path

import pytest

from dra_driver.model.errors import VendorError
from dra_driver.vendors.pci import Numbering, bound_addresses

FIRST, SECOND, THIRD = "0000:1b:00.0", "0000:43:00.0", "0001:05:00.0"


def test_addresses_come_in_order_and_nothing_else_does(tmp_path: Path) -> None:
    """A driver's folder also holds its controls."""
    for name in (THIRD, "bind", FIRST, "module", "new_id", SECOND):
        (tmp_path / name).touch()
    assert bound_addresses(tmp_path) == (FIRST, SECOND, THIRD)


@pytest.mark.parametrize("name", ["gone", "file"])
def test_not_knowing_is_never_an_empty_list(tmp_path: Path, name: str) -> None:
    """No folder, or none that can be listed: an error that names it and invites a retry."""
    (tmp_path / "file").touch()
    with pytest.raises(VendorError, match=str(tmp_path / name)) as refused:
        bound_addresses(tmp_path / name)
    assert refused.value.retryable


def test_numbers_outlive_an_unplugged_neighbour() -> None:
    """The others keep theirs while it is away, and it has its own again when it is back."""
    numbering = Numbering()
    everyone = (FIRST, SECOND, THIRD)
    assert [numbering.index(at, everyone) for at in everyone] == [0, 1, 2]
    assert numbering.index(THIRD, (SECOND, THIRD)) == 2
    assert [numbering.index(at, everyone) for at in everyone] == [0, 1, 2]
