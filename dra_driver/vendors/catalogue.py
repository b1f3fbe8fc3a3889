"""The models that machine profiles can name, found again from what real hardware calls itself."""

from __future__ import annotations

from dra_driver.model.device import Gpu, Vendor
from dra_driver.vendors.amd.simulated import CATALOGUE
from dra_driver.vendors.nvidia.profiles import BOARDS


def model_of(gpu: Gpu) -> str | None:
    """The model's name in machine profiles, or None for one that cannot be simulated."""
    names = {
        Vendor.NVIDIA: {board.product_name: model for model, board in BOARDS.items()},
        Vendor.AMD: {product.product_name: model for model, product in CATALOGUE.items()},
    }
    return names[gpu.vendor].get(gpu.product_name)
