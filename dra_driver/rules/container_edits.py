"""Which container edits may reach a runtime: a shell inside the container, too, must be able to live with them."""

from __future__ import annotations

import re
from collections.abc import Iterable

from dra_driver.model.edits import ContainerEdits
from dra_driver.model.errors import NameInvalid

PRINTABLE = re.compile(r"[ -~]*")

_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]*")
_PERMISSIONS = re.compile(r"[rwm]{1,3}")
_OPTION = re.compile(r"[a-z][a-z0-9=_-]*")
_HOOKS = (
    *("prestart", "createRuntime", "createContainer"),
    *("startContainer", "poststart", "poststop"),
)


def check_edits(edits: ContainerEdits) -> None:
    """NameInvalid names the first variable, path, permission, option or hook that a runtime would refuse."""
    _check_variables(edits.env)
    for node in edits.device_nodes:
        _check_paths((node.path, node.host_path or node.path))
        allowed = _PERMISSIONS.fullmatch(node.permissions)
        demand(f"permissions of {node.path}", node.permissions, allowed, "some of r, w and m")
        major, minor = node.numbers or (1, 0)
        numbers = f"{major}:{minor}"
        demand(
            f"numbers of {node.path}", numbers, major > 0 <= minor, "a major above 0 and a minor"
        )
    for mount in edits.mounts:
        _check_paths((mount.host_path, mount.container_path))
        for option in mount.options:
            allowed = _OPTION.fullmatch(option)
            demand(
                f"mount option of {mount.container_path}", option, allowed, "like ro or mode=0755"
            )
    for hook in edits.hooks:
        demand("hook", hook.name, hook.name in _HOOKS, f"one of {', '.join(_HOOKS)}")
        _check_paths((hook.path,))
        for argument in hook.args:
            allowed = PRINTABLE.fullmatch(argument)
            demand(f"argument of hook {hook.path}", argument, allowed, "printable ASCII")
        _check_variables(hook.env)


def demand(what: str, value: str, holds: object, rule: str) -> None:
    """NameInvalid unless it holds."""
    if not holds:
        raise NameInvalid(f"{what} {value!r} cannot be written into a CDI spec: it must be {rule}")


def _check_variables(variables: Iterable[tuple[str, str]]) -> None:
    for name, value in variables:
        demand("environment variable", name, _VARIABLE.fullmatch(name), "A-Z, 0-9 and _")
        demand(f"value of {name}", value, PRINTABLE.fullmatch(value), "printable ASCII")


def _check_paths(paths: Iterable[str]) -> None:
    for path in paths:
        plain = path.startswith("/") and "/../" not in f"{path}/"
        demand("path", path, plain and PRINTABLE.fullmatch(path), "absolute, printable, without ..")
