import subprocess
import sys
from pathlib import Path

from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import FieldDescriptor, FileDescriptor

from dra_driver.wire.dra_v1 import api_pb2 as dra
from dra_driver.wire.dra_v1beta1 import api_pb2 as dra_v1beta1
from dra_driver.wire.health_v1 import api_pb2 as health
from dra_driver.wire.health_v1alpha1 import api_pb2 as health_v1alpha1
from dra_driver.wire.podresources_v1 import api_pb2 as podresources
from dra_driver.wire.registration_v1 import api_pb2 as registration

ROOT = Path(__file__).parents[2]


def fields(file: FileDescriptor) -> dict[str, dict[str, int]]:
    return {
        message.full_name: {field.name: field.number for field in message.fields}
        for message in file.message_types_by_name.values()
    }


def services(file: FileDescriptor) -> dict[str, set[str]]:
    return {
        service.full_name: set(service.methods_by_name)
        for service in file.services_by_name.values()
    }


def test_committed_code_is_what_the_protos_give() -> None:
    """Nobody edits generated code, and nobody forgets to generate it."""
    check = [sys.executable, "-m", "tests.generate", "--check"]
    done = subprocess.run(check, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


DRA = {
    "Claim": {"namespace": 1, "uid": 2, "name": 3},
    "NodePrepareResourcesRequest": {"claims": 1},
    "NodePrepareResourcesResponse": {"claims": 1},
    "NodePrepareResourceResponse": {"devices": 1, "error": 2},
    "Device": {
        "request_names": 1,
        "pool_name": 2,
        "device_name": 3,
        "cdi_device_ids": 4,
        "share_id": 5,
    },
    "NodeUnprepareResourcesRequest": {"claims": 1},
    "NodeUnprepareResourcesResponse": {"claims": 1},
    "NodeUnprepareResourceResponse": {"error": 1},
}
HEALTH = {
    "NodeWatchResourcesRequest": {},
    "NodeWatchResourcesResponse": {"devices": 1},
    "DeviceIdentifier": {"pool_name": 1, "device_name": 2},
    "DeviceHealth": {
        "device": 1,
        "health": 2,
        "last_updated_time": 3,
        "health_check_timeout_seconds": 4,
        "message": 5,
    },
}


def test_dra_messages_are_those_of_the_kubelet() -> None:
    """Names and numbers as in k8s.io/kubelet/pkg/apis/dra: a kubelet written in Go reads what we write; v1beta1 knows no shares."""
    device = {name: number for name, number in DRA["Device"].items() if name != "share_id"}
    for file, version, messages in (
        (dra.DESCRIPTOR, "v1", DRA),
        (dra_v1beta1.DESCRIPTOR, "v1beta1", DRA | {"Device": device}),
    ):
        package = f"k8s.io.kubelet.pkg.apis.dra.{version}"
        assert fields(file) == {f"{package}.{name}": one for name, one in messages.items()}
        methods = {"NodePrepareResources", "NodeUnprepareResources"}
        assert services(file) == {f"{package}.DRAPlugin": methods}


def test_answers_are_maps_by_uid() -> None:
    """A map on the wire is repeated key-value entries: the kind of the field is part of the contract."""
    for file in (dra, dra_v1beta1):
        for message in (file.NodePrepareResourcesResponse, file.NodeUnprepareResourcesResponse):
            field = message.DESCRIPTOR.fields_by_name["claims"]
            assert field.message_type is not None
            assert field.message_type.GetOptions().map_entry
            assert field.message_type.fields_by_name["key"].type == FieldDescriptor.TYPE_STRING


def test_health_messages_are_those_of_the_kubelet() -> None:
    """Names, numbers and values as in k8s.io/kubelet/pkg/apis/dra-health, the same in both versions; answers are a stream."""
    for file, version in ((health.DESCRIPTOR, "v1"), (health_v1alpha1.DESCRIPTOR, "v1alpha1")):
        assert fields(file) == {f"{version}.{name}": one for name, one in HEALTH.items()}
        assert services(file) == {f"{version}.DRAResourceHealth": {"NodeWatchResources"}}
        values = file.enum_types_by_name["HealthStatus"].values_by_name
        numbers = {name: value.number for name, value in values.items()}
        assert numbers == {"UNKNOWN": 0, "HEALTHY": 1, "UNHEALTHY": 2}
        copied = descriptor_pb2.FileDescriptorProto()
        file.CopyToProto(copied)
        assert copied.service[0].method[0].server_streaming


def test_pod_resources_are_those_of_the_kubelet() -> None:
    """Names and numbers as in k8s.io/kubelet/pkg/apis/podresources/v1, whose package is that of health: both load."""
    assert fields(podresources.DESCRIPTOR) == {
        "v1.ListPodResourcesRequest": {},
        "v1.ListPodResourcesResponse": {"pod_resources": 1},
        "v1.PodResources": {"name": 1, "namespace": 2, "containers": 3},
        "v1.ContainerResources": {"name": 1, "dynamic_resources": 5},
        "v1.DynamicResource": {"claim_name": 2, "claim_namespace": 3, "claim_resources": 4},
        "v1.ClaimResource": {
            "cdi_devices": 1,
            "driver_name": 2,
            "pool_name": 3,
            "device_name": 4,
            "share_id": 5,
        },
        "v1.CDIDevice": {"name": 1},
    }
    assert services(podresources.DESCRIPTOR) == {"v1.PodResourcesLister": {"List"}}


def test_registration_messages_are_those_of_the_kubelet() -> None:
    """Names and numbers as in k8s.io/kubelet/pkg/apis/pluginregistration/v1."""
    assert fields(registration.DESCRIPTOR) == {
        "pluginregistration.InfoRequest": {},
        "pluginregistration.PluginInfo": {
            "type": 1,
            "name": 2,
            "endpoint": 3,
            "supported_versions": 4,
        },
        "pluginregistration.RegistrationStatus": {"plugin_registered": 1, "error": 2},
        "pluginregistration.RegistrationStatusResponse": {},
    }
    methods = {"GetInfo", "NotifyRegistrationStatus"}
    assert services(registration.DESCRIPTOR) == {"pluginregistration.Registration": methods}
