from __future__ import annotations

import json
import socket
from collections.abc import Callable
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from dra_driver.cli.failures import Tool, describe, verbose_option
from dra_driver.cli.main import main
from dra_driver.model import errors
from dra_driver.model.errors import DraError


def test_both_versions_are_shown(dra: Callable[..., Result]) -> None:
    """In words, and as JSON."""
    client, server = dra("version").stdout.splitlines()
    assert client.startswith("Client Version: v")
    assert server == "Server Version: v1.36.2"
    document = json.loads(dra("version", "-o", "json").stdout)
    assert document["serverVersion"] == {"gitVersion": "v1.36.2"}
    assert f"Client Version: {document['clientVersion']['gitVersion']}" == client


def test_without_a_server_our_own_version_is_still_shown() -> None:
    """The exit code is 1 and the error names the address; --client asks nobody."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        result = CliRunner().invoke(main, ["version", "--server", url])
        alone = CliRunner().invoke(main, ["version", "--client", "--server", url])
    assert result.exit_code == 1
    assert result.stdout.startswith("Client Version: v")
    assert url in result.stderr
    assert result.stderr.splitlines()[1].startswith("check --server")
    assert (alone.exit_code, alone.stdout) == (0, result.stdout)


def test_a_refusal_says_who_refused_what(dra: Callable[..., Result], cluster: Any) -> None:
    """403 is one line about the object and one about rights."""
    cluster.answers["/api/v1/nodes"] = 403
    result = dra("get", "nodes")
    assert result.exit_code == 1
    error, advice = result.stderr.splitlines()
    assert error.startswith("error: list Node")
    assert "403" in error
    assert "kubectl auth can-i" in advice


def test_no_cluster_at_all_is_explained(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """Without any address the error says what was tried, and how to name one."""
    for name in ("KUBERNETES_SERVICE_HOST", "KUBECONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    result = CliRunner().invoke(main, ["get", "devices"])
    assert result.exit_code == 1
    assert result.stderr.startswith("error: no API server")
    assert "--server URL" in result.stderr


def test_the_environment_names_the_kubeconfig(
    monkeypatch: pytest.MonkeyPatch, cluster: Any, tmp_path: Any
) -> None:
    """KUBECONFIG and --context are heard."""
    entry = {"cluster": "here", "user": "me"}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "here", "cluster": {"server": cluster.url}}],
        "users": [{"name": "me", "user": {}}],
        "contexts": [{"name": "sandbox", "context": entry}],
    }
    (tmp_path / "config").write_text(json.dumps(config))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    result = CliRunner().invoke(main, ["get", "nodes", "-o", "name", "--context", "sandbox"])
    assert result.stdout == "node/node-a\nnode/node-b\n", result.stderr


@pytest.mark.parametrize("flags", [("-v", "fail"), ("fail", "-v")])
def test_a_traceback_is_shown_only_on_request(flags: tuple[str, ...]) -> None:
    """A bug is admitted in two lines; -v, before or after the command, adds the traceback."""

    @click.group(cls=Tool)
    @verbose_option
    def tool() -> None:
        pass

    @tool.command()
    @verbose_option
    def fail() -> None:
        raise KeyError("spec")

    quiet = CliRunner().invoke(tool, ["fail"])
    assert quiet.exit_code == 1
    assert quiet.stderr.splitlines()[0] == "error: internal error: KeyError: 'spec'"
    assert "this is a bug" in quiet.stderr.splitlines()[1]
    assert "Traceback" in CliRunner().invoke(tool, flags).stderr


def test_every_error_of_ours_has_advice() -> None:
    """None of our own errors is taken for a bug, and none is silent about what to do."""
    kinds = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, DraError)
    ]
    assert len(kinds) > 15
    for kind in kinds:
        raised = kind.__new__(kind)
        raised.args = ("it broke",)
        error, advice = describe(raised).splitlines()
        assert error.startswith("error: ")
        assert "bug" not in advice


def test_help_tells_the_exit_codes() -> None:
    """-h works everywhere, and the main page documents what scripts rely on."""
    assert "0 done, 1 failed, 2 wrong usage" in " ".join(
        CliRunner().invoke(main, ["-h"]).stdout.split()
    )
    assert CliRunner().invoke(main, ["get", "devices", "-h"]).exit_code == 0
