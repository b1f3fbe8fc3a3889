import subprocess
import sys
from pathlib import Path

from google.protobuf.descriptor import FieldDescriptor, FileDescriptor

from dra_driver.wire.dra_v1 import api_pb2 as dra
from dra_driver.wire.registration_v1 import api_pb2 as registration

ROOT = Path(__file__).parents[2]


def fields(file: FileDescriptor) -> dict[str, dict[str, int]]:
    return {
        message.full_name: {field.name: field.number for field in message.fields}
        for message in file.message_types_by_name.values()
    }


def test_committed_code_is_what_the_protos_give() -> None:
    """Nobody edits generated code, and nobody forgets to generate it."""
    check = [sys.executable, "-m", "tests.generate", "--check"]
    done = subprocess.run(check, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_dra_messages_are_those_of_the_kubelet() -> None:
    """Names and numbers as in k8s.io/kubelet/pkg/apis/dra/v1: a kubelet written in Go reads what we write."""
    package = "k8s.io.kubelet.pkg.apis.dra.v1"
    assert fields(dra.DESCRIPTOR) == {
        f"{package}.Claim": {"namespace": 1, "uid": 2, "name": 3},
        f"{package}.NodePrepareResourcesRequest": {"claims": 1},
        f"{package}.NodePrepareResourcesResponse": {"claims": 1},
        f"{package}.NodePrepareResourceResponse": {"devices": 1, "error": 2},
        f"{package}.Device": {
            "request_names": 1,
            "pool_name": 2,
            "device_name": 3,
            "cdi_device_ids": 4,
            "share_id": 5,
        },
        f"{package}.NodeUnprepareResourcesRequest": {"claims": 1},
        f"{package}.NodeUnprepareResourcesResponse": {"claims": 1},
        f"{package}.NodeUnprepareResourceResponse": {"error": 1},
    }
    service = dra.DESCRIPTOR.services_by_name["DRAPlugin"]
    assert set(service.methods_by_name) == {"NodePrepareResources", "NodeUnprepareResources"}


def test_answers_are_maps_by_uid() -> None:
    """A map on the wire is repeated key-value entries: the kind of the field is part of the contract."""
    for message in (dra.NodePrepareResourcesResponse, dra.NodeUnprepareResourcesResponse):
        field = message.DESCRIPTOR.fields_by_name["claims"]
        assert field.message_type is not None
        assert field.message_type.GetOptions().map_entry
        assert field.message_type.fields_by_name["key"].type == FieldDescriptor.TYPE_STRING


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
    service = registration.DESCRIPTOR.services_by_name["Registration"]
    assert set(service.methods_by_name) == {"GetInfo", "NotifyRegistrationStatus"}
