"""Kubeconfigs as kubectl users have them."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
import yaml

from dra_driver.kube.kubeconfig import read_kubeconfig
from dra_driver.kube.tokens import FixedToken, PluginToken, TokenFile
from dra_driver.model.errors import SettingsError

PEM = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


def write(
    path: Path, cluster: dict[str, Any] | None = None, user: dict[str, Any] | None = None
) -> Path:
    """A kubeconfig with one context `main`, for a cluster and user of that name."""
    config: dict[str, Any] = {
        "current-context": "main",
        "contexts": [{"name": "main", "context": {"cluster": "main", "user": "main"}}],
        "clusters": [
            {"name": "main", "cluster": {"server": "https://api.test:6443", **(cluster or {})}}
        ],
        "users": [{"name": "main", "user": {"token": "t"} if user is None else user}],
    }
    path.write_text(yaml.safe_dump(config))
    return path


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


async def test_a_token(tmp_path: Path) -> None:
    """Server, CA and token written into the file."""
    file = write(tmp_path / "config", {"certificate-authority-data": b64(PEM)})
    endpoint = read_kubeconfig([file])
    assert (endpoint.server, endpoint.ca_pem) == ("https://api.test:6443", PEM)
    assert endpoint.verify
    assert isinstance(endpoint.token, FixedToken)
    assert await endpoint.token.current() == "t"


async def test_paths_start_at_the_file(tmp_path: Path) -> None:
    """Relative paths are relative to the kubeconfig; a token file goes before a token."""
    (tmp_path / "ca.pem").write_text(PEM)
    (tmp_path / "tok").write_text("from-file")
    file = write(
        tmp_path / "config",
        {"certificate-authority": "ca.pem"},
        {"tokenFile": "tok", "token": "t"},
    )
    endpoint = read_kubeconfig([file])
    assert endpoint.ca_pem == PEM
    assert isinstance(endpoint.token, TokenFile)
    assert await endpoint.token.current() == "from-file"


def test_client_certificates(tmp_path: Path) -> None:
    """Certificate from a file and key from data go together, and repr shows neither."""
    (tmp_path / "cert").write_text(PEM)
    user = {"client-certificate": "cert", "client-key-data": b64("KEY")}
    endpoint = read_kubeconfig([write(tmp_path / "config", user=user)])
    assert endpoint.client_pem == f"{PEM}\nKEY"
    assert endpoint.token is None
    assert "KEY" not in repr(endpoint)


def test_what_changes_tls(tmp_path: Path) -> None:
    """insecure-skip-tls-verify and tls-server-name are honoured."""
    cluster = {"insecure-skip-tls-verify": True, "tls-server-name": "other"}
    endpoint = read_kubeconfig([write(tmp_path / "config", cluster)])
    assert not endpoint.verify
    assert endpoint.tls_server_name == "other"


def test_a_context_without_a_user(tmp_path: Path) -> None:
    """Nobody in particular, as for a local proxy."""
    file = tmp_path / "config"
    file.write_text(
        "contexts: [{name: c, context: {cluster: k}}]\n"
        "clusters: [{name: k, cluster: {server: 'http://127.0.0.1:8001'}}]\n"
    )
    endpoint = read_kubeconfig([file], "c")
    assert endpoint.token is None
    assert endpoint.client_pem is None


def test_several_files(tmp_path: Path) -> None:
    """The first file to define a name wins; pieces may come from different files."""
    first = tmp_path / "first"
    first.write_text(
        "current-context: main\nclusters: [{name: main, cluster: {server: 'https://first'}}]"
    )
    second = write(tmp_path / "second")
    assert read_kubeconfig([first, second]).server == "https://first"
    assert read_kubeconfig([second, first]).server == "https://api.test:6443"


def test_exec_and_auth_provider_go_to_the_official_client(tmp_path: Path) -> None:
    """They are recognised, and nothing is run before a token is asked for."""
    for user in ({"exec": {"command": "/nonexistent"}}, {"auth-provider": {"name": "oidc"}}):
        endpoint = read_kubeconfig([write(tmp_path / "config", user=user)])
        assert isinstance(endpoint.token, PluginToken)


@pytest.mark.parametrize(
    ("cluster", "user", "message"),
    [
        ({"server": ""}, {}, "cluster 'main' has no server"),
        ({"server": 5}, {}, "server is a int, not a text"),
        ({"server": "api.test:6443"}, {}, "is not a URL like"),
        ({"certificate-authority": "absent.pem"}, {}, "certificate-authority cannot be read"),
        ({"certificate-authority-data": "%%%"}, {}, "certificate-authority cannot be read"),
        ({"proxy-url": "http://proxy"}, {}, "proxy-url is not supported"),
        ({}, {"token": "s3cret\nhunter2"}, "token holds spaces or line breaks"),
        ({}, {"as": "admin"}, "as is not supported"),
        ({}, {"username": "u", "password": "hunter2"}, "username is not supported"),
        ({}, {"client-certificate-data": b64(PEM)}, "it needs both"),
    ],
)
def test_what_cannot_be_honoured_is_refused(
    tmp_path: Path, cluster: dict[str, Any], user: dict[str, Any], message: str
) -> None:
    """Never a silent guess: the message names file, entry and key, and no secret."""
    with pytest.raises(SettingsError, match=message) as caught:
        read_kubeconfig([write(tmp_path / "config", cluster, user)])
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("current-context: x", "has no context 'x'; it has none"),
        ("contexts: [{name: a, context: {cluster: b}}]\ncurrent-context: a", "has no cluster 'b'"),
        ("contexts: [{name: a}]\ncurrent-context: a", "context 'a' is empty"),
        ("contexts: []", "has no current-context"),
        ("token: s3cret: x", "is not YAML"),
        ("- a", "is not a YAML mapping"),
        ("", "is not a YAML mapping"),
    ],
)
def test_broken_files(tmp_path: Path, text: str, message: str) -> None:
    """Each says what is missing, where, and what there is instead; never the file's content."""
    file = tmp_path / "config"
    file.write_text(text)
    with pytest.raises(SettingsError, match=message) as caught:
        read_kubeconfig([file])
    assert "s3cret" not in str(caught.value)


def test_an_unreadable_file(tmp_path: Path) -> None:
    """The message names the path."""
    with pytest.raises(SettingsError, match=str(tmp_path)):
        read_kubeconfig([tmp_path / "absent"])
