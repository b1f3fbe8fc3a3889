from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dra_driver.cdi.spec import claim_spec, shared_spec
from dra_driver.model.edits import ContainerEdits, DeviceNode, Hook, Mount, SharedEdits
from dra_driver.model.errors import NameInvalid
from dra_driver.ports import JsonObject

LIBRARY = Mount(host_path="/usr/lib/libcuda.so.1", container_path="/usr/lib/libcuda.so.1")
CONTROL = DeviceNode(path="/dev/nvidiactl")
LINKS = Hook(
    path="/usr/bin/nvidia-cdi-hook",
    args=("nvidia-cdi-hook", "create-symlinks", "--link", "libcuda.so.1::/usr/lib/libcuda.so"),
    env=(("NVIDIA_CTK_DEBUG", "false"),),
)
CACHE = Hook(path="/usr/bin/nvidia-cdi-hook", args=("nvidia-cdi-hook", "update-ldcache"))
FIRST = ContainerEdits(
    env=(("NVIDIA_VISIBLE_DEVICES", "void"), ("DRA_DEVICE_A", "GPU-1")),
    device_nodes=(CONTROL, DeviceNode(path="/dev/nvidia0")),
    mounts=(LIBRARY,),
)
SECOND = ContainerEdits(
    env=(("NVIDIA_VISIBLE_DEVICES", "void"), ("DRA_DEVICE_B", "GPU-2")),
    device_nodes=(CONTROL, DeviceNode(path="/dev/nvidia1")),
    mounts=(LIBRARY,),
)


def given_to_container(spec: JsonObject, names: set[str]) -> dict[str, set[str]]:
    """What a runtime applies for these devices: the spec's own edits and those of each device."""
    applied = [spec.get("containerEdits", {})]
    applied += [d["containerEdits"] for d in spec["devices"] if d["name"] in names]
    return {
        "env": {text for edits in applied for text in edits.get("env", [])},
        "deviceNodes": {n["path"] for edits in applied for n in edits.get("deviceNodes", [])},
        "mounts": {m["containerPath"] for edits in applied for m in edits.get("mounts", [])},
        "hooks": {" ".join(h["args"]) for edits in applied for h in edits.get("hooks", [])},
    }


def expected(*devices: ContainerEdits) -> dict[str, set[str]]:
    """What the edits themselves say."""
    return {
        "env": {f"{name}={value}" for edits in devices for name, value in edits.env},
        "deviceNodes": {node.path for edits in devices for node in edits.device_nodes},
        "mounts": {mount.container_path for edits in devices for mount in edits.mounts},
        "hooks": {" ".join(hook.args) for edits in devices for hook in edits.hooks},
    }


def test_the_spec_of_one_device() -> None:
    """Kind, the lowest version that has what is used, and the edits in CDI's words."""
    assert claim_spec([("a-0", FIRST)]) == {
        "cdiVersion": "0.3.0",
        "kind": "gpu.dra-driver.dev/claim",
        "devices": [
            {
                "name": "a-0",
                "containerEdits": {
                    "env": ["NVIDIA_VISIBLE_DEVICES=void", "DRA_DEVICE_A=GPU-1"],
                    "deviceNodes": [
                        {"path": "/dev/nvidiactl", "permissions": "rw"},
                        {"path": "/dev/nvidia0", "permissions": "rw"},
                    ],
                    "mounts": [
                        {
                            "hostPath": "/usr/lib/libcuda.so.1",
                            "containerPath": "/usr/lib/libcuda.so.1",
                            "options": ["ro", "nosuid", "nodev", "bind"],
                        }
                    ],
                },
            }
        ],
    }


def test_version_follows_what_is_used() -> None:
    """Names that begin with a digit and host paths of device nodes came with CDI 0.5.0."""
    moved = replace(FIRST, device_nodes=(DeviceNode(path="/dev/a", host_path="/dev/b"),))
    assert claim_spec([("a", FIRST)])["cdiVersion"] == "0.3.0"
    assert claim_spec([("0a", FIRST)])["cdiVersion"] == "0.5.0"
    assert claim_spec([("a", moved)])["cdiVersion"] == "0.5.0"
    node = claim_spec([("a", moved)])["devices"][0]["containerEdits"]["deviceNodes"][0]
    assert node == {"path": "/dev/a", "hostPath": "/dev/b", "permissions": "rw"}


def test_a_node_that_the_host_lacks_has_numbers() -> None:
    """A character device, which the runtime makes without looking for it on the host."""
    node = DeviceNode(path="/dev/nvidia-caps/nvidia-cap12", numbers=(236, 12))
    spec = claim_spec([("a", ContainerEdits(device_nodes=(node,)))])
    (written,) = spec["devices"][0]["containerEdits"]["deviceNodes"]
    assert written == {
        "path": node.path,
        "permissions": "rw",
        "type": "c",
        "major": 236,
        "minor": 12,
    }


def test_hooks_stand_in_the_order_given() -> None:
    """They are part of CDI from the first version on; arguments and environment as the runtime passes them."""
    spec = claim_spec([("a", replace(FIRST, hooks=(LINKS, CACHE)))])
    assert spec["cdiVersion"] == "0.3.0"
    assert spec["devices"][0]["containerEdits"]["hooks"] == [
        {
            "hookName": "createContainer",
            "path": "/usr/bin/nvidia-cdi-hook",
            "args": [
                *("nvidia-cdi-hook", "create-symlinks"),
                *("--link", "libcuda.so.1::/usr/lib/libcuda.so"),
            ],
            "env": ["NVIDIA_CTK_DEBUG=false"],
        },
        {
            "hookName": "createContainer",
            "path": "/usr/bin/nvidia-cdi-hook",
            "args": ["nvidia-cdi-hook", "update-ldcache"],
        },
    ]


def test_hooks_that_all_devices_need_run_once() -> None:
    """A runtime applies a spec's own edits once for a container, however many of its devices the container gets."""
    spec = claim_spec(
        [("a", replace(FIRST, hooks=(LINKS,))), ("b", replace(SECOND, hooks=(LINKS,)))]
    )
    assert len(spec["containerEdits"]["hooks"]) == 1
    assert all("hooks" not in device["containerEdits"] for device in spec["devices"])


def test_edits_that_claims_share_are_the_specs_own() -> None:
    """A container with several claims gets them once; the device has a variable, as CDI wants no empty device."""
    edits = ContainerEdits(
        env=(("NVIDIA_VISIBLE_DEVICES", "void"),), mounts=(LIBRARY,), hooks=(LINKS,)
    )
    spec = shared_spec(SharedEdits(name="nvidia-1a", edits=edits))
    own = claim_spec([("a", edits)])["devices"][0]["containerEdits"]
    assert spec == {
        "cdiVersion": "0.3.0",
        "kind": "gpu.dra-driver.dev/driver",
        "containerEdits": own,
        "devices": [
            {"name": "nvidia-1a", "containerEdits": {"env": ["DRA_DRIVER_FILES=nvidia-1a"]}}
        ],
    }


@pytest.mark.parametrize("name", ["", "a/b", "a=b", "-a"])
def test_shared_edits_have_a_cdi_name(name: str) -> None:
    """It becomes a file's and a device's."""
    with pytest.raises(NameInvalid, match="CDI device"):
        shared_spec(SharedEdits(name=name, edits=FIRST))


def test_the_content_of_shared_edits_is_checked_too() -> None:
    """It reaches a shell as a claim's does."""
    edits = ContainerEdits(hooks=(replace(LINKS, name="never"),))
    with pytest.raises(NameInvalid, match="hook 'never'"):
        shared_spec(SharedEdits(name="a", edits=edits))


def test_a_note_is_an_annotation_of_the_spec() -> None:
    """Spec annotations came with CDI 0.6.0; whatever the edits, they and the devices stay as they are without a note."""
    spec = claim_spec([("0a", FIRST)], '{"a":"\\u00fc"}')
    assert spec.pop("annotations") == {"gpu.dra-driver.dev/record": '{"a":"\\u00fc"}'}
    assert spec.pop("cdiVersion") == "0.6.0"
    plain = claim_spec([("0a", FIRST)])
    assert "annotations" not in plain
    assert spec == {key: value for key, value in plain.items() if key != "cdiVersion"}


def test_notes_that_a_runtime_would_refuse() -> None:
    """Annotations of a spec have 256 KiB, name included, and ours are printable ASCII."""
    largest = 256 * 1024 - len("gpu.dra-driver.dev/record")
    claim_spec([("a", FIRST)], "x" * largest)
    for note in ("x" * (largest + 1), "a\nb", "\u00fc"):
        with pytest.raises(NameInvalid, match="note"):
            claim_spec([("a", FIRST)], note)


def test_shared_edits_are_written_once() -> None:
    """What all devices need stands once, for the spec; what only one needs stays with it."""
    spec = claim_spec([("a", FIRST), ("b", SECOND)])
    assert spec["containerEdits"]["env"] == ["NVIDIA_VISIBLE_DEVICES=void"]
    assert spec["containerEdits"]["deviceNodes"] == [
        {"path": "/dev/nvidiactl", "permissions": "rw"}
    ]
    assert len(spec["containerEdits"]["mounts"]) == 1
    assert [device["containerEdits"]["env"] for device in spec["devices"]] == [
        ["DRA_DEVICE_A=GPU-1"],
        ["DRA_DEVICE_B=GPU-2"],
    ]


def test_no_device_is_left_empty() -> None:
    """CDI refuses a device without edits, so equal devices keep theirs."""
    spec = claim_spec([("a", FIRST), ("b", FIRST)])
    assert "containerEdits" not in spec
    assert spec["devices"][0]["containerEdits"] == spec["devices"][1]["containerEdits"] != {}


NAMES = st.sampled_from(["A", "B", "C"])
EDITS = st.builds(
    ContainerEdits,
    env=st.lists(st.tuples(NAMES, st.just("1")), max_size=2).map(tuple),
    device_nodes=st.lists(
        st.builds(DeviceNode, path=NAMES.map(lambda name: f"/dev/{name}")), max_size=2
    ).map(tuple),
    mounts=st.lists(st.just(LIBRARY), max_size=1).map(tuple),
    hooks=st.lists(st.sampled_from([LINKS, CACHE]), unique=True).map(tuple),
).filter(lambda edits: edits != ContainerEdits())


@given(st.lists(EDITS, min_size=1, max_size=4), st.data())
def test_a_container_gets_its_own_devices_and_no_others(
    devices: list[ContainerEdits], data: st.DataObject
) -> None:
    """Whichever of a claim's devices a container uses, it gets exactly their edits, and every device has some of its own."""
    named = {f"d{number}": edits for number, edits in enumerate(devices)}
    spec = claim_spec(list(named.items()))
    used = data.draw(st.sets(st.sampled_from(sorted(named)), min_size=1))
    assert given_to_container(spec, used) == expected(*(named[name] for name in used))
    assert all(device["containerEdits"] for device in spec["devices"])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (ContainerEdits(), "edits of 'a'"),
        (ContainerEdits(env=(("lower", "1"),)), "environment variable 'lower'"),
        (ContainerEdits(env=(("A=B", "1"),)), "environment variable 'A=B'"),
        (ContainerEdits(env=(("", "1"),)), "environment variable ''"),
        (ContainerEdits(env=(("A\n", "1"),)), "environment variable"),
        (ContainerEdits(env=(("A", "1\nB=2"),)), "value of A"),
        (ContainerEdits(env=(("A", "\x00"),)), "value of A"),
        (ContainerEdits(env=(("A", "\u00e9"),)), "value of A"),
        (ContainerEdits(device_nodes=(DeviceNode(path="dev/a"),)), "path 'dev/a'"),
        (ContainerEdits(device_nodes=(DeviceNode(path=""),)), "path ''"),
        (ContainerEdits(device_nodes=(DeviceNode(path="/a", host_path="/../b"),)), "without .."),
        (ContainerEdits(device_nodes=(DeviceNode(path="/a", permissions="rx"),)), "'rx'"),
        (ContainerEdits(device_nodes=(DeviceNode(path="/a", permissions=""),)), "permissions of"),
        (ContainerEdits(device_nodes=(DeviceNode(path="/a", numbers=(0, 1)),)), "numbers of /a"),
        (ContainerEdits(device_nodes=(DeviceNode(path="/a", numbers=(1, -1)),)), "'1:-1'"),
        (ContainerEdits(mounts=(replace(LIBRARY, host_path="/a/../../etc"),)), "without .."),
        (ContainerEdits(mounts=(replace(LIBRARY, container_path="/a\n"),)), "printable"),
        (ContainerEdits(mounts=(replace(LIBRARY, options=("ro,rw",)),)), "mount option"),
        (ContainerEdits(hooks=(replace(LINKS, name="poststar"),)), "hook 'poststar'"),
        (ContainerEdits(hooks=(replace(LINKS, path="nvidia-cdi-hook"),)), "path 'nvidia-cdi-hook'"),
        (ContainerEdits(hooks=(replace(LINKS, args=("a\n",)),)), "argument of hook"),
        (ContainerEdits(hooks=(replace(LINKS, env=(("a", "1"),)),)), "environment variable 'a'"),
    ],
)
def test_what_a_runtime_or_a_shell_could_stumble_over_is_refused(
    wrong: ContainerEdits, message: str
) -> None:
    """Names, values, paths and options pass a strict list; the error names the one that does not."""
    with pytest.raises(NameInvalid) as caught:
        claim_spec([("a", wrong)])
    assert message in str(caught.value)


@pytest.mark.parametrize("names", [[], ["a", "a"], ["-a"], ["a="], ["a\n"], [""], ["a/b"]])
def test_device_names_are_cdi_names(names: list[str]) -> None:
    """At least one device; names as CDI allows them, each once, or runtimes ignore the whole file."""
    with pytest.raises(NameInvalid, match="CDI device"):
        claim_spec([(name, FIRST) for name in names])
