"""machine.h as ctypes: the file that Python writes and the C library maps."""

from __future__ import annotations

from ctypes import Array, Structure, c_char, c_uint32
from typing import ClassVar

_GPUS, _CUTS, _PLACES, _INSTANCES, _COMPUTES, _FAULTS, _AMOUNTS = 16, 18, 8, 8, 8, 8, 6
_PROCESSES, _METRICS, _FIELDS, XIDS = 4, 8, 8, 128


def _numbers(*names: str) -> list[tuple[str, type[c_uint32]]]:
    return [(name, c_uint32) for name in names]


class Place(Structure):
    _fields_: ClassVar = _numbers("start", "size")

    start: int
    size: int


class Cut(Structure):
    _fields_: ClassVar = [
        *_numbers("index", "id", "limit", "multiprocessors", "memory_mib"),
        ("amounts", c_uint32 * _AMOUNTS),
        *_numbers("place_count"),
        ("places", Place * _PLACES),
        ("name", c_char * 96),
    ]

    places: Array[Place]


class Process(Structure):
    _fields_: ClassVar = _numbers("pid", "does", "memory_mib", "sm_percent")


class Load(Structure):
    _fields_: ClassVar = [
        *_numbers("gpu_percent", "memory_percent", "milliwatts", "celsius", "memory_mib"),
        ("metrics", c_uint32 * _METRICS),
        *_numbers("process_count"),
        ("processes", Process * _PROCESSES),
    ]

    metrics: Array[c_uint32]
    processes: Array[Process]


class Compute(Structure):
    _fields_: ClassVar = [
        *_numbers("kind", "id", "profile", "mig_index", "start"),
        ("uuid", c_char * 64),
        ("load", Load),
    ]

    kind: int
    uuid: bytes
    load: Load


class Instance(Structure):
    _fields_: ClassVar = [
        *_numbers("kind", "id", "cut"),
        ("place", Place),
        ("computes", Compute * _COMPUTES),
    ]

    kind: int
    computes: Array[Compute]


class Fault(Structure):
    _fields_: ClassVar = [
        ("function", c_char * 64),
        *_numbers("code", "calls", "delay_ms", "met"),
    ]

    calls: int
    met: int


class Field(Structure):
    _fields_: ClassVar = _numbers("id", "type", "value")

    id: int
    type: int
    value: int


class Xid(Structure):
    _fields_: ClassVar = _numbers("number", "instance")


class Health(Structure):
    _fields_: ClassVar = [
        ("fields", Field * _FIELDS),
        *_numbers("links", "links_down", "clock_reasons", "reported"),
        ("xids", Xid * XIDS),
    ]

    fields: Array[Field]
    links_down: int
    clock_reasons: int
    reported: int
    xids: Array[Xid]


class Gpu(Structure):
    _fields_: ClassVar = [
        *_numbers("kind"),
        ("address", c_char * 16),
        ("name", c_char * 96),
        ("uuid", c_char * 64),
        *_numbers("device_id", "minor", "architecture", "capability_major", "capability_minor"),
        *_numbers("memory_mib", "cores", "resetless", "busy", "mode", "pending", "created"),
        *_numbers("cut_count"),
        ("cuts", Cut * _CUTS),
        ("instances", Instance * _INSTANCES),
        ("faults", Fault * _FAULTS),
        ("health", Health),
        ("load", Load),
    ]

    address: bytes
    resetless: int
    busy: int
    mode: int
    pending: int
    cuts: Array[Cut]
    instances: Array[Instance]
    faults: Array[Fault]
    health: Health
    load: Load


class Machine(Structure):
    _fields_: ClassVar = [
        *_numbers("loads", "loaded", "cuda_version"),
        ("driver_version", c_char * 80),
        ("metrics", c_uint32 * _METRICS),
        *_numbers("event_sets", "samples", "gpu_count"),
        ("gpus", Gpu * _GPUS),
    ]

    loads: int
    loaded: int
    event_sets: int
    samples: int
    gpu_count: int
    gpus: Array[Gpu]
