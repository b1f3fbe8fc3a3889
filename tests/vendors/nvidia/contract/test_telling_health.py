"""How a GPU is, told through NVML's calls: set, then read back, on every board; and only read on this machine's own GPUs."""

from __future__ import annotations

import pytest

from dra_driver.model.device import Placement
from dra_driver.model.errors import VendorError
from dra_driver.model.health import Cause, Severity
from dra_driver.vendors.nvidia.backend import NvidiaBackend
from dra_driver.vendors.nvidia.nvml import Code
from dra_driver.vendors.nvidia.nvml_activity import ClockReason
from dra_driver.vendors.nvidia.nvml_health import Field, XidEvent
from dra_driver.vendors.nvidia.nvml_library import NvmlLibrary
from dra_driver.vendors.nvidia.profiles import BOARDS
from tests.vendors.nvidia.contract.boards import first, offered, on_all_boards, refusal, smallest
from tests.vendors.nvidia.contract.conftest import Benches, FakeBenches

_OLD_DRIVER = {Field.RECOVERY_ACTION: None}
"""It recommends no action, so XIDs say what there is to say."""


def test_a_gpu_tells_how_it_is(readable: NvmlLibrary) -> None:
    """Whatever it does not offer it names as such, and the rest is in the range of its kind."""
    for address in readable.pci_addresses():
        gpu, health = readable.gpu_by_address(address), readable.health
        fields = health.field_values(gpu, tuple(Field))
        assert fields.keys() <= set(Field)
        assert all(0 <= value < 1 << 32 for value in fields.values())
        assert health.field_values(gpu, tuple(Field)).keys() == fields.keys()
        with offered():
            assert 0 <= health.active_links(gpu) <= 18
        with offered():
            assert 0 <= readable.activity.clock_reasons(gpu) < 1 << 16
        with offered():
            events = health.open_events(gpu)
            assert isinstance(health.next_event(events), XidEvent | None)
            health.close_events(events)


def test_the_backend_finds_a_well_gpu_well(readable: NvmlLibrary) -> None:
    """At no look it fails, and what it finds has words."""
    backend = NvidiaBackend(readable)
    for address in readable.pci_addresses():
        for _ in range(2):
            assert all(one.message for one in backend.health(address))
    backend.close()


@on_all_boards
def test_fields_are_read_back(bench: Benches, model: str) -> None:
    """Each with its own value, 32 and 64 bits wide; one that is not offered is missing, and costs no other."""
    one = bench(model=model)
    gpu = first(one.nvml)
    well = {field: 0 for field in Field if field is not Field.RETIRED_PENDING}
    assert one.nvml.health.field_values(gpu, tuple(Field)) == well
    said: dict[Field, int | None] = {field: 7 + number for number, field in enumerate(Field)}
    one.tells(said)
    assert one.nvml.health.field_values(gpu, tuple(Field)) == said
    for field in Field:
        one.tells(said | {field: None})
        left = {other: value for other, value in said.items() if other is not field}
        assert one.nvml.health.field_values(gpu, tuple(Field)) == left


@on_all_boards
def test_links_are_counted(bench: Benches, model: str) -> None:
    """Those that are up, be they asleep; a board that has none says so, and one whose links are all down does not."""
    one, links = bench(model=model), BOARDS[model].nvlinks
    gpu, health = first(one.nvml), one.nvml.health
    if not links:
        assert refusal(lambda: health.active_links(gpu)) == Code.NOT_SUPPORTED
        return
    for down in (0, 1, links, 0):
        one.loses(down)
        assert health.active_links(gpu) == links - down


def test_heat_is_one_reason_among_others(bench: Benches) -> None:
    """It is told as long as it lasts, by that GPU alone."""
    one = bench(count=2)
    gpu, other = (one.nvml.gpu_by_address(at) for at in one.nvml.pci_addresses())
    for is_hot in (False, True, False):
        one.heats(is_hot=is_hot)
        told = [one.nvml.activity.clock_reasons(handle) for handle in (gpu, other)]
        heat = [bool(reasons & ClockReason.HW_THERMAL_SLOWDOWN) for reasons in told]
        assert heat == [is_hot, False]


def test_xids_come_once_and_in_order_to_who_asked_before(bench: Benches) -> None:
    """To each set of that GPU, with the instance if it is one's alone; to no other GPU's."""
    one = bench(count=2)
    gpu, other = (one.nvml.gpu_by_address(at) for at in one.nvml.pci_addresses())
    health = one.nvml.health
    one.reports(XidEvent(xid=31))
    early, elsewhere = health.open_events(gpu), health.open_events(other)
    assert health.next_event(early) is None
    told = [XidEvent(xid=48), XidEvent(xid=94, instance=0), XidEvent(xid=95, instance=7)]
    one.reports(*told)
    late = health.open_events(gpu)
    one.reports(XidEvent(xid=79))
    assert [health.next_event(early) for _ in range(5)] == [*told, XidEvent(xid=79), None]
    assert [health.next_event(late) for _ in range(2)] == [XidEvent(xid=79), None]
    assert health.next_event(elsewhere) is None
    for events in (early, late, elsewhere):
        health.close_events(events)


def test_an_xid_becomes_an_ailment(bench: Benches) -> None:
    """From the driver's report to the backend's words, of the whole GPU and of the instance that it is about."""
    one = bench(mode="mig")
    gpu, address = first(one.nvml), one.nvml.pci_addresses()[0]
    backend = NvidiaBackend(one.nvml)
    profile, places = smallest(one.nvml, gpu)
    made = one.nvml.create_gpu_instance(gpu, profile.id, places[3])
    number = one.nvml.gpu_instance_info(made).id
    one.tells(_OLD_DRIVER)
    assert backend.health(address) == ()
    one.reports(XidEvent(xid=95, instance=number), XidEvent(xid=119), XidEvent(xid=13))
    found = [(one.cause, one.severity, one.detail, one.instance) for one in backend.health(address)]
    assert found == [
        (Cause.DRIVER_ERROR, Severity.BROKEN, "95", Placement(3, 1)),
        (Cause.DRIVER_ERROR, Severity.BROKEN, "119", None),
    ]
    one.tells({Field.RECOVERY_ACTION: 1})
    (ailment,) = backend.health(address)
    assert (ailment.cause, ailment.detail) == (Cause.RECOVERY_DUE, "gpu-reset")


def test_a_burst_of_xids_loses_none_that_the_driver_keeps(bench: Benches) -> None:
    """A hundred between two looks are told by the next looks, a part at a time."""
    one = bench()
    address = one.nvml.pci_addresses()[0]
    backend = NvidiaBackend(one.nvml)
    one.tells(_OLD_DRIVER)
    backend.health(address)
    one.reports(*[XidEvent(xid=92)] * 99, XidEvent(xid=119))
    looks = [{ailment.detail for ailment in backend.health(address)} for _ in range(2)]
    assert looks == [{"92"}, {"92", "119"}]


def test_event_sets_are_given_back(fake_bench: FakeBenches) -> None:
    """Before a mode is switched, when the GPU does not take the registration, and in the end."""
    one = fake_bench(count=2)
    sick, well = one.host.addresses

    def sets() -> int:
        with one.host.changing() as machine:
            return machine.event_sets

    backend = NvidiaBackend(one.nvml)
    backend.health(well)
    with one.host.failing(sick, "nvmlDeviceRegisterEvents", code=Code.UNKNOWN):
        for _ in range(3):
            with pytest.raises(VendorError, match="UNKNOWN"):
                backend.health(sick)
    assert sets() == 1
    backend.health(sick)
    assert sets() == 2
    backend.close()
    assert sets() == 0


@pytest.mark.parametrize(
    "function",
    ["GetFieldValues", "GetCurrentClocksEventReasons", "GetSupportedEventTypes", "RegisterEvents"],
)
def test_each_call_about_health_fails_with_its_gpu_alone(
    fake_bench: FakeBenches, function: str
) -> None:
    """The look fails and names the GPU; the other GPU's does not, and the next one of this GPU finds what there is."""
    one = fake_bench(count=2)
    sick, well = one.host.addresses
    backend = NvidiaBackend(one.nvml)
    with one.host.failing(sick, f"nvmlDevice{function}", code=Code.UNKNOWN):
        with pytest.raises(VendorError, match=f"GPU {sick}.*UNKNOWN"):
            backend.health(sick)
        assert backend.health(well) == ()
    assert backend.health(sick) == ()
