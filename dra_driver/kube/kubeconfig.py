"""Kubeconfig files, read by ourselves: the official client is loaded only for exec and auth-provider credentials.

https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/: of several files the first one
to define a name wins, and relative paths start at the file that holds them.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dra_driver.kube.endpoint import Endpoint
from dra_driver.kube.tokens import FixedToken, PluginToken, TokenFile, TokenSource, is_token
from dra_driver.model.errors import SettingsError

# What would silently change where we connect or as whom, if it were ignored.
_REFUSED = ("proxy-url", "username", "password", "as", "as-uid", "as-groups", "as-user-extra")


def read_kubeconfig(files: Sequence[Path], context: str | None = None) -> Endpoint:
    """The endpoint that `context` (None: the current one) of these files describes; raises SettingsError."""
    documents = [(path, _document(path)) for path in files]
    wanted = context or next((c for _, d in documents if (c := d.get("current-context"))), None)
    if wanted is None:
        raise SettingsError(f"kubeconfig {_names(files)} has no current-context: name a context")
    chosen = _stanza(documents, "context", str(wanted))
    cluster = _stanza(documents, "cluster", chosen.text("cluster") or "")
    user_name = chosen.text("user")
    user = _stanza(documents, "user", user_name) if user_name else None
    server = cluster.text("server")
    if server is None:
        raise SettingsError(f"{cluster.what} has no server: add its URL")
    return Endpoint(
        server=server,
        token=_token(user, files, str(wanted)) if user else None,
        ca_pem=cluster.pem("certificate-authority"),
        client_pem=_client_pem(user) if user else None,
        tls_server_name=cluster.text("tls-server-name"),
        verify=cluster.values.get("insecure-skip-tls-verify") is not True,
    )


@dataclass(frozen=True, slots=True)
class _Stanza:
    """One named cluster, user or context, and the folder its relative paths start from."""

    what: str
    values: Mapping[str, Any]
    folder: Path

    def text(self, key: str) -> str | None:
        value = self.values.get(key)
        if value is None or value == "":
            return None
        if not isinstance(value, str):
            raise SettingsError(f"{self.what}: {key} is a {type(value).__name__}, not a text")
        return value

    def path(self, key: str) -> Path | None:
        text = self.text(key)
        return self.folder / text if text else None

    def pem(self, key: str) -> str | None:
        """What `<key>-data` holds, or else the file that `<key>` names; None without either."""
        data = self.text(f"{key}-data")
        try:
            if data is not None:
                return base64.b64decode(data, validate=True).decode("ascii")
            path = self.path(key)
            return path.read_text(encoding="ascii") if path else None
        except (binascii.Error, UnicodeDecodeError, OSError) as error:
            raise SettingsError(
                f"{self.what}: {key} cannot be read ({error}); it must be PEM, in a file or in base64"
            ) from error


def _document(path: Path) -> Mapping[str, Any]:
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(
            f"kubeconfig {path}: {error.strerror}; name a file that can be read"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        # The parser's own words quote the file, and the file holds tokens.
        raise SettingsError(f"kubeconfig {path} is not YAML: write it again") from error
    if not isinstance(document, dict):
        raise SettingsError(f"kubeconfig {path} is not a YAML mapping: write it again")
    return document


def _stanza(
    documents: Sequence[tuple[Path, Mapping[str, Any]]], section: str, name: str
) -> _Stanza:
    known = []
    for path, document in documents:
        for entry in document.get(f"{section}s") or ():
            if isinstance(entry, dict) and entry.get("name") == name:
                return _checked(f"kubeconfig {path}, {section} {name!r}", entry.get(section), path)
            known.append(str(entry.get("name")) if isinstance(entry, dict) else "?")
    files = _names([path for path, _ in documents])
    raise SettingsError(
        f"kubeconfig {files} has no {section} {name!r}; it has {', '.join(known) or 'none'}"
    )


def _checked(what: str, values: Any, path: Path) -> _Stanza:
    if not isinstance(values, dict):
        raise SettingsError(f"{what} is empty: write it again")
    refused = [key for key in _REFUSED if values.get(key)]
    if refused:
        raise SettingsError(f"{what}: {refused[0]} is not supported; use a context without it")
    return _Stanza(what, values, path.parent)


def _token(user: _Stanza, files: Sequence[Path], context: str) -> TokenSource | None:
    if path := user.path("tokenFile"):
        return TokenFile(path)
    if text := user.text("token"):
        if not is_token(text):
            raise SettingsError(f"{user.what}: token holds spaces or line breaks: write it again")
        return FixedToken(text)
    if user.values.get("exec") or user.values.get("auth-provider"):
        return PluginToken(files, context)
    return None


def _client_pem(user: _Stanza) -> str | None:
    certificate, key = user.pem("client-certificate"), user.pem("client-key")
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise SettingsError(f"{user.what} has a client certificate or a key: it needs both")
    return f"{certificate}\n{key}"


def _names(files: Sequence[Path]) -> str:
    return ", ".join(map(str, files))
