"""An API server's address and the credentials for it, as one value."""

from __future__ import annotations

import ssl
import tempfile
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from dra_driver.kube.tokens import TokenSource
from dra_driver.model.errors import SettingsError


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where the API server is, and how it lets us in; printing it shows no secret.

    `ca_pem`: the certificates we trust (None: the system's). `client_pem`: our certificate chain followed by its key.
    `tls_server_name`: the name in the server's certificate, where it is not the URL's. Raises SettingsError for a
    server that is no http or https URL.
    """

    server: str
    token: TokenSource | None = None
    ca_pem: str | None = None
    client_pem: str | None = field(default=None, repr=False)
    tls_server_name: str | None = None
    verify: bool = True

    def __post_init__(self) -> None:
        if not _is_server(self.server):
            raise SettingsError(
                f"API server {_without_userinfo(self.server)!r} is not a URL like https://host:6443, without user and password"
            )

    def ssl_context(self) -> ssl.SSLContext | None:
        """What TLS needs, or None for plain http. Raises SettingsError for certificates that cannot be read."""
        if urlsplit(self.server).scheme == "http":
            return None
        try:
            context = ssl.create_default_context(cadata=self.ca_pem)
        except ssl.SSLError as error:
            raise SettingsError(
                f"CA for {self.server} holds no PEM certificate; take it from the cluster's kubeconfig"
            ) from error
        # Python 3.13 became strict, and clusters' home-made CAs often lack the key identifiers that it wants.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.client_pem is not None:
            self._load_client_certificate(context, self.client_pem)
        return context

    def _load_client_certificate(self, context: ssl.SSLContext, pem: str) -> None:
        # OpenSSL wants a file: this one is ours alone (0600) and gone when the certificate is loaded.
        with tempfile.NamedTemporaryFile("w", prefix="dra-driver-", encoding="ascii") as file:
            file.write(pem)
            file.flush()
            try:
                context.load_cert_chain(
                    file.name, password=""
                )  # an empty one: never ask at a terminal
            except (ssl.SSLError, ValueError) as error:
                raise SettingsError(
                    f"client certificate for {self.server} and its key do not load; "
                    "both must be PEM, belong together and have no passphrase"
                ) from error


def _is_server(text: str) -> bool:
    """Whether it is a URL that can be reached at all; a port that is no number shows only when it is asked for."""
    try:
        url = urlsplit(text)
        _ = url.port
    except ValueError:
        return False
    is_plain = "@" not in url.netloc and not any(character.isspace() for character in text)
    return is_plain and url.scheme in {"http", "https"} and bool(url.hostname)


def _without_userinfo(server: str) -> str:
    return "..." + server.rpartition("@")[2] if "@" in server else server
