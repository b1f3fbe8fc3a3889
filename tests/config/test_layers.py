from pathlib import Path

import pytest

from dra_driver.config.layers import Resolved, resolve, settings_of
from dra_driver.config.settings import PluginSettings
from dra_driver.model.errors import SettingsError

NODE = {"DRA_NODE_NAME": "node-a"}


def resolved(
    text: str | bytes | None = None,
    environment: dict[str, str] = NODE,
    **flags: str | None,
) -> Resolved[PluginSettings]:
    file = None
    if text is not None:
        file = Path("settings.yaml")
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return resolve(PluginSettings, file=file, environment=environment, flags=flags)


def refusal(
    text: str | bytes | None = None,
    environment: dict[str, str] = NODE,
    **flags: str | None,
) -> str:
    with pytest.raises(SettingsError) as caught:
        resolved(text, environment, **flags)
    return str(caught.value)


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_later_layers_win_and_origins_say_which() -> None:
    """Defaults < file < environment < flags, and each value's origin is told."""
    file = "devicesPerGpu: 2\npublishMode: plain\nlogLevel: debug\n"
    environment = NODE | {"DRA_PUBLISH_MODE": "full", "DRA_LOG_LEVEL": "error"}
    result = resolved(file, environment, log_level="warning", server=None)
    assert result.settings == PluginSettings(
        node_name="node-a", devices_per_gpu=2, publish_mode="full", log_level="warning"
    )
    assert result.origins["logFormat"] == "default"
    assert result.origins["devicesPerGpu"] == "file settings.yaml"
    assert result.origins["publishMode"] == "environment variable DRA_PUBLISH_MODE"
    assert result.origins["logLevel"] == "flag --log-level"
    assert set(result.origins) == {setting.key for setting in settings_of(PluginSettings)}


def test_text_of_flags_and_variables_becomes_numbers_and_paths() -> None:
    """Every type of setting can be given as text."""
    result = resolved(None, NODE | {"DRA_SDK_TIMEOUT_S": "2.5"}, devices_per_gpu="7", cdi_dir="/x")
    assert result.settings.sdk_timeout_s == 2.5
    assert result.settings.devices_per_gpu == 7
    assert result.settings.cdi_dir == Path("/x")


def test_empty_variables_and_files_set_nothing() -> None:
    """A chart may render empty variables, and a settings file may be all comments."""
    result = resolved("# nothing yet\n", NODE | {"DRA_MACHINE": "", "DRA_SERVICE_HOST": "10.0.0.1"})
    assert result.settings == PluginSettings(node_name="node-a")


def test_null_in_a_file_is_an_explicit_default_for_optional_settings() -> None:
    """`server: null` says that there is none; a setting that needs a value refuses null."""
    assert resolved("server: null\n").settings.server is None
    assert "dataDir: None should be a path" in refusal("dataDir: null\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("devicesPerGpu: '3'", "file settings.yaml: devicesPerGpu: '3' should be a valid integer"),
        ("devicesPerGpu: 65", "devicesPerGpu: 65 should be less than or equal to 64"),
        ("devicePerGpu: 3", "devicePerGpu: unknown field, set to 3; known: nodeName, server"),
        ("devicePerGpu: 3", "(did you mean devicesPerGpu?)"),
        ("node_name: a", "node_name: unknown field, set to 'a'"),
        ("dataDir: here", "dataDir: 'here' is not an absolute path; begin it with /"),
        ("dataDir: 3", "dataDir: 3 should be a path"),
        ("logLevel: off", "logLevel: False is not known; write one of debug, info, warning, error"),
        ("sdkTimeoutS: .nan", "sdkTimeoutS: nan should be"),
        ("machine: ''", "machine: '' "),
        ("server: api.example", "server: 'api.example' "),
        ("logLevel: info\nlogLevel: debug", "line 2: 'logLevel' is set twice; remove one"),
        ("1: 2", "line 1: a key that is not text; put it in quotes"),
        ("<<: {logLevel: info}", "line 1: a key that is not text"),
        ("- logLevel", "settings file settings.yaml: holds a list where keys and values should be"),
        ("logLevel: [", "settings file settings.yaml: line 2"),
        ("logLevel: !!python/name:os.system", "settings file settings.yaml: line 1"),
        ("logLevel: 2024-13-45", "settings file settings.yaml: month"),
        (b"\xff\xfe\x00", "settings file settings.yaml"),
    ],
)
def test_refusal_of_a_file_names_file_key_value_and_fix(text: str | bytes, message: str) -> None:
    """A settings file with anything that we do not understand stops the start, and the message says what to change."""
    refused = refusal(text)
    assert message in refused
    assert "settings.yaml" in refused


def test_refusal_names_flag_or_variable() -> None:
    """The layer is named by what the user has typed."""
    assert refusal(None, devices_per_gpu="many").startswith(
        "flag --devices-per-gpu: devicesPerGpu: 'many' should be a valid integer"
    )
    assert refusal(None, node_name="Node_A").startswith(
        "flag --node-name: nodeName: 'Node_A' is not a node's name; write it as `kubectl get nodes`"
    )
    assert refusal(None, NODE | {"DRA_LOG_FORMAT": "xml"}).startswith(
        "environment variable DRA_LOG_FORMAT: logFormat: 'xml' is not known; write one of json, text"
    )


def test_a_missing_setting_is_explained_by_all_its_names() -> None:
    """Whoever forgot a setting learns every way of giving it."""
    message = refusal(None, {})
    assert message == (
        "nodeName is not set; give --node-name, DRA_NODE_NAME, or nodeName in the settings file"
    )


@pytest.mark.parametrize("path", ["missing.yaml", "."])
def test_a_file_that_cannot_be_read_is_refused(path: str) -> None:
    """A settings file that was named is never silently left out."""
    with pytest.raises(SettingsError, match=r"cannot be read: .*; check the path"):
        resolve(PluginSettings, file=Path(path), environment=NODE, flags={})
