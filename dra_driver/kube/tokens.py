"""Bearer tokens: where one comes from, and how to get a newer one. None of them ever prints its token."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from dra_driver.model.errors import Forbidden, Unavailable


class TokenSource(Protocol):
    """Knows the token to send now. Raises KubeError where there is none."""

    async def current(self, *, renew: bool = False) -> str:
        """The token; with `renew` (the last one was answered 401) fetched afresh, whatever is remembered."""


def is_token(text: str) -> bool:
    """Whether the text can stand in an HTTP header as one word."""
    return text.isascii() and text.isprintable() and text != "" and " " not in text


class FixedToken:
    """A token that is what it is for as long as the process lives."""

    def __init__(self, text: str) -> None:
        self._text = text

    async def current(self, *, renew: bool = False) -> str:
        """The token; there is nothing to renew it from."""
        del renew
        return self._text


class TokenFile:
    """The token in a file that somebody rotates (in a pod: the kubelet, hourly).

    Read again whenever the file changes. While the file cannot be read the last token stays good: it usually is.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int, int] | None = None
        self._text = ""

    async def current(self, *, renew: bool = False) -> str:
        """The file's token; one `stat` unless it changed."""
        if renew:
            self._stamp = None
        try:
            self._refresh()
        except OSError as error:
            if not self._text:
                raise Unavailable(
                    f"token file {self._path}: {error.strerror}; mount a service account token or name another file"
                ) from error
        return self._text

    def _refresh(self) -> None:
        found = os.stat(self._path)  # noqa: PTH116 -- on every request; pathlib costs twice as much
        stamp = (found.st_mtime_ns, found.st_ino, found.st_size)
        if stamp == self._stamp:
            return
        text = self._path.read_text(encoding="utf-8", errors="replace").strip()
        if not is_token(text):
            raise OSError(0, "holds no token")
        self._text, self._stamp = text, stamp


class PluginToken:
    """The token of a kubeconfig user with an exec or auth-provider credential.

    The official client knows how to run those, and knows when their tokens expire. It is imported at the first
    request, in a worker thread: it costs 0.3 s and 15 MiB, and a plugin may ask a human.
    """

    def __init__(self, files: Sequence[Path], context: str) -> None:
        self._files = os.pathsep.join(map(str, files))
        self._context = context
        self._configuration: Any = None
        self._turn = asyncio.Lock()

    async def current(self, *, renew: bool = False) -> str:
        """The plugin's token, from memory until it expires."""
        where = f"kubeconfig {self._files}, context {self._context!r}: the credential plugin"
        async with self._turn:
            try:
                header = await asyncio.to_thread(self._fetch, renew=renew)
            except Exception as error:  # a plugin is anybody's code
                raise Forbidden(
                    f"{where} failed ({type(error).__name__}); run its command by hand to see why"
                ) from error
        if header is None or not header.startswith("Bearer "):
            raise Forbidden(f"{where} gave no token; run its command by hand to see why")
        return header.removeprefix("Bearer ")

    def _fetch(self, *, renew: bool) -> str | None:
        from kubernetes.client import Configuration  # noqa: PLC0415 -- see the class
        from kubernetes.config import load_kube_config  # noqa: PLC0415

        if renew or self._configuration is None:
            self._configuration = Configuration()
            load_kube_config(
                config_file=self._files,
                context=self._context,
                client_configuration=self._configuration,
                persist_config=False,
            )
        header: str | None = self._configuration.get_api_key_with_prefix("BearerToken")
        return header
