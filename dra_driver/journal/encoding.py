"""Grants, steps and outcomes as JSON, and back: format version 1, spelled out field by field.

These objects pass between releases: the one before reads them, and so does the one after. A field may be added, with a
default here for lines that lack it; readers pass over fields that they do not know. A field never changes its meaning:
that takes a new FORMAT_VERSION. Decoders raise KeyError, TypeError or ValueError.
"""

from __future__ import annotations

from typing import Any

from dra_driver.model.device import (
    BindPassthrough,
    CreateStage,
    Placement,
    SetMode,
    StepChange,
    UnbindPassthrough,
)
from dra_driver.model.edits import ContainerEdits, DeviceNode, Hook, Mount
from dra_driver.model.record import Grant, Preparation, PreparedDevice, Step
from dra_driver.ports import JsonObject

FORMAT_VERSION = 1


def encode_grant(grant: Grant) -> JsonObject:
    """One granted device."""
    return {
        "device": grant.device,
        "pool": grant.pool,
        "requests": list(grant.requests),
        "gpu": grant.gpu,
        "profile": grant.profile,
        "placement": encode_placement(grant.placement) if grant.placement else None,
        "shareId": grant.share_id,
        "monitor": grant.monitor,
    }


def decode_grant(data: JsonObject) -> Grant:
    """What `encode_grant` wrote."""
    placement = data.get("placement")
    return Grant(
        device=text(data, "device"),
        pool=text(data, "pool"),
        requests=texts(data, "requests"),
        gpu=text(data, "gpu"),
        profile=_text_or_none(data, "profile"),
        placement=None if placement is None else _decode_placement(placement),
        share_id=_text_or_none(data, "shareId"),
        monitor=_flag(data, "monitor"),
    )


def encode_step(step: Step) -> JsonObject:
    """One hardware change, tagged by its kind."""
    return {"device": step.device, "change": _encode_change(step.change)}


def decode_step(data: JsonObject) -> Step:
    """What `encode_step` wrote."""
    return Step(device=text(data, "device"), change=_decode_change(data["change"]))


def encode_preparation(preparation: Preparation) -> JsonObject:
    """What the kubelet was told, and the edits of each CDI device."""
    return {
        "devices": [
            {
                "requests": list(device.requests),
                "pool": device.pool,
                "device": device.device,
                "cdiIds": list(device.cdi_ids),
                "shareId": device.share_id,
                "hardware": list(device.hardware),
            }
            for device in preparation.devices
        ],
        "edits": [
            {"device": name, "edits": _encode_edits(edits)} for name, edits in preparation.edits
        ],
    }


def decode_preparation(data: JsonObject) -> Preparation:
    """What `encode_preparation` wrote."""
    return Preparation(
        devices=tuple(
            PreparedDevice(
                requests=texts(device, "requests"),
                pool=text(device, "pool"),
                device=text(device, "device"),
                cdi_ids=texts(device, "cdiIds"),
                share_id=_text_or_none(device, "shareId"),
                hardware=texts(device, "hardware") if "hardware" in device else (),
            )
            for device in data["devices"]
        ),
        edits=tuple(
            (text(entry, "device"), _decode_edits(entry["edits"])) for entry in data["edits"]
        ),
    )


def text(data: JsonObject, key: str) -> str:
    """The string at `key`; TypeError where it is something else."""
    value = data[key]
    if not isinstance(value, str):
        raise TypeError(f"{key} is {value!r}, not a string")
    return value


def texts(data: JsonObject, key: str) -> tuple[str, ...]:
    """The strings at `key`; TypeError where there is something else."""
    values = data[key]
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise TypeError(f"{key} is {values!r}, not a list of strings")
    return tuple(values)


def _text_or_none(data: JsonObject, key: str) -> str | None:
    return None if data.get(key) is None else text(data, key)


def _flag(data: JsonObject, key: str) -> bool:
    value = data.get(key, False)
    if not isinstance(value, bool):
        raise TypeError(f"{key} is {value!r}, not true or false")
    return value


def _whole(data: JsonObject, key: str) -> int:
    value = data[key]
    if type(value) is not int:  # in Python a bool is an int
        raise TypeError(f"{key} is {value!r}, not a whole number")
    return value


def encode_placement(placement: Placement) -> JsonObject:
    """Where a partition is; of a part of one, which."""
    part = {"part": placement.part} if placement.part else {}
    return {"start": placement.start, "size": placement.size} | part


def _decode_placement(data: JsonObject) -> Placement:
    part = _whole(data, "part") if "part" in data else 0
    return Placement(start=_whole(data, "start"), size=_whole(data, "size"), part=part)


def _encode_change(change: StepChange) -> JsonObject:
    match change:
        case SetMode(gpu=gpu, mode=mode):
            return {"kind": "setMode", "gpu": gpu, "mode": mode}
        case CreateStage(gpu=gpu, profile=profile, placement=placement, stage=stage):
            return {
                "kind": "createStage",
                "gpu": gpu,
                "profile": profile,
                "placement": encode_placement(placement),
                "stage": stage,
                "parent": change.parent,
            } | ({"shared": True} if change.shared else {})
        case BindPassthrough(gpu=gpu):
            return {"kind": "bindPassthrough", "gpu": gpu}
        case UnbindPassthrough(gpu=gpu):
            return {"kind": "unbindPassthrough", "gpu": gpu}


def _decode_change(data: JsonObject) -> StepChange:
    kind, gpu = text(data, "kind"), text(data, "gpu")
    if kind == "setMode":
        return SetMode(gpu=gpu, mode=text(data, "mode"))
    if kind == "createStage":
        return CreateStage(
            gpu=gpu,
            profile=text(data, "profile"),
            placement=_decode_placement(data["placement"]),
            stage=text(data, "stage"),
            parent=_text_or_none(data, "parent"),
            shared=_flag(data, "shared"),
        )
    if kind == "bindPassthrough":
        return BindPassthrough(gpu=gpu)
    if kind == "unbindPassthrough":
        return UnbindPassthrough(gpu=gpu)
    raise ValueError(f"hardware change of unknown kind {kind!r}")


def _encode_edits(edits: ContainerEdits) -> JsonObject:
    written: JsonObject = {
        "env": [list(pair) for pair in edits.env],
        "deviceNodes": [
            {"path": node.path, "hostPath": node.host_path, "permissions": node.permissions}
            | ({"numbers": list(node.numbers)} if node.numbers else {})
            for node in edits.device_nodes
        ],
        "mounts": [
            {
                "hostPath": mount.host_path,
                "containerPath": mount.container_path,
                "options": list(mount.options),
            }
            for mount in edits.mounts
        ],
    }
    if edits.hooks:
        written["hooks"] = [
            {
                "name": hook.name,
                "path": hook.path,
                "args": list(hook.args),
                "env": [list(pair) for pair in hook.env],
            }
            for hook in edits.hooks
        ]
    return written


def _decode_edits(data: JsonObject) -> ContainerEdits:
    return ContainerEdits(
        env=tuple(_decode_variable(pair) for pair in data["env"]),
        device_nodes=tuple(
            DeviceNode(
                path=text(node, "path"),
                host_path=_text_or_none(node, "hostPath"),
                permissions=text(node, "permissions"),
                numbers=_decode_numbers(node["numbers"]) if "numbers" in node else None,
            )
            for node in data["deviceNodes"]
        ),
        mounts=tuple(
            Mount(
                host_path=text(mount, "hostPath"),
                container_path=text(mount, "containerPath"),
                options=texts(mount, "options"),
            )
            for mount in data["mounts"]
        ),
        hooks=tuple(
            Hook(
                name=text(hook, "name"),
                path=text(hook, "path"),
                args=texts(hook, "args"),
                env=tuple(_decode_variable(pair) for pair in hook["env"]),
            )
            for hook in data.get("hooks", ())
        ),
    )


def _decode_numbers(pair: Any) -> tuple[int, int]:
    major, minor = pair
    if not (type(major) is int and type(minor) is int):
        raise TypeError(f"device numbers {pair!r} are not two whole numbers")
    return major, minor


def _decode_variable(pair: Any) -> tuple[str, str]:
    name, value = pair
    if not (isinstance(name, str) and isinstance(value, str)):
        raise TypeError(f"variable {pair!r} is not two strings")
    return name, value
