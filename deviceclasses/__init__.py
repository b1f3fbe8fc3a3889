"""The DeviceClasses that we ship: one YAML file each in this folder, `gpu.yaml` for `gpu.dra-driver.dev`.

Each selects by driver, type and sharing. None selects by driver alone: the scheduler takes the first device that fits, and
would hand out an eighth of a GPU to whoever asked for one. The driver is tested first, because devices of other drivers
lack our attributes, and a missing one fails the whole allocation.
"""

from __future__ import annotations

from importlib import resources
from typing import Any

import yaml

from dra_driver.model.errors import InputError


def load_all() -> tuple[dict[str, Any], ...]:
    """All of them, as API objects, sorted by name."""
    files = (entry for entry in resources.files(__name__).iterdir() if entry.name.endswith(".yaml"))
    classes = (yaml.load(file.read_bytes(), Loader=yaml.CSafeLoader) for file in files)
    return tuple(sorted(classes, key=lambda each: str(each["metadata"]["name"])))


def load(name: str) -> dict[str, Any]:
    """The class of that name (`gpu.dra-driver.dev`), as an API object; InputError if we ship none."""
    classes = {each["metadata"]["name"]: each for each in load_all()}
    if name not in classes:
        raise InputError(f"device class {name!r} is not shipped; name one of {', '.join(classes)}")
    return classes[name]
