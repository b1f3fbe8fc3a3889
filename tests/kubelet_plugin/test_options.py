import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest
import yaml
from click.testing import CliRunner

from dra_driver.config.layers import settings_of
from dra_driver.config.settings import PluginSettings
from kubelet_plugin.__main__ import plugin

View: TypeAlias = Callable[..., str]


@pytest.fixture
def view(monkeypatch: pytest.MonkeyPatch) -> View:
    for name in [name for name in os.environ if name.startswith("DRA_")]:
        monkeypatch.delenv(name)

    def invoke(*arguments: str, **environment: str) -> str:
        result = CliRunner().invoke(
            plugin, ["config", "view", *arguments], env=environment, catch_exceptions=False
        )
        assert result.exit_code == 0, result.output
        return result.stdout

    return invoke


def run_program(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kubelet_plugin", *arguments],
        capture_output=True,
        check=False,
        env={"PATH": os.environ["PATH"]},
        text=True,
        timeout=30,
    )


def test_help_names_every_flag_and_its_variable() -> None:
    """`run --help` is complete: each setting by flag and variable."""
    text = CliRunner().invoke(plugin, ["run", "--help"]).stdout
    words = text.replace("[", " ").replace(";", " ").replace("]", " ").split()
    for setting in settings_of(PluginSettings):
        assert setting.flag in words
        assert setting.variable in words
    assert "--config" in words
    assert "DRA_CONFIG" in words


def test_view_shows_settings_and_origins(view: View) -> None:
    """Each value is shown with the layer it came from."""
    text = view("--devices-per-gpu", "3", DRA_NODE_NAME="node-a")
    assert 'nodeName: "node-a"  # environment variable DRA_NODE_NAME\n' in text
    assert "devicesPerGpu: 3  # flag --devices-per-gpu\n" in text
    assert 'logLevel: "info"  # default\n' in text


def test_view_prints_a_settings_file(view: View, tmp_path: Path) -> None:
    """The YAML, used as a settings file, gives the same settings, whichever way the file is named."""
    file = tmp_path / "settings.yaml"
    file.write_text(view("--node-name", "node-a", "--log-level", "debug", "--machine", "8xh100-80"))
    again = view("--config", str(file))
    assert again == view(DRA_CONFIG=str(file))
    assert yaml.safe_load(again) == yaml.safe_load(file.read_text())
    assert f'logLevel: "debug"  # file {file}\n' in again


def test_view_as_json_is_for_programs(view: View) -> None:
    """JSON holds kind, settings and origins, key by key."""
    document = json.loads(view("--node-name", "node-a", "-o", "json"))
    assert document["kind"] == "PluginSettings"
    assert document["settings"]["nodeName"] == "node-a"
    assert document["origins"]["nodeName"] == "flag --node-name"
    assert document["settings"].keys() == document["origins"].keys()


def test_refused_settings_end_with_one_line_and_exit_code_1() -> None:
    """What is wrong with the settings is said on stderr, without a traceback, before anything is started."""
    done = run_program("run", "--node-name", "node-a", "--publish-mode", "ful")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == (
        "error: flag --publish-mode: publishMode: 'ful' is not known; write one of auto, full, plain "
        "(did you mean full?)\n"
    )


def test_wrong_usage_ends_with_exit_code_2() -> None:
    """An unknown flag is wrong usage."""
    done = run_program("run", "--nodename", "node-a")
    assert done.returncode == 2
    assert "--node-name" in done.stderr


def test_version_is_that_of_the_distribution() -> None:
    """`version` names program and version on one line."""
    name, number = run_program("version").stdout.split()
    assert name == "dra-kubelet-plugin"
    assert number[0].isdigit()
