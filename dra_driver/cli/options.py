"""Options that several commands share; they mean what kubectl means by them.

Each decorator adds options and calls the command with one value made of them, so that commands have few parameters.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import click

from dra_driver.cli.failures import verbose_option
from dra_driver.cli.printers import Layout
from dra_driver.kube.credentials import Access

Command: TypeAlias = Callable[..., None]

label_option = click.option(
    "-l", "--selector", "labels", metavar="LABELS", help="For example team=a,tier!=test."
)


def access_options(command: Command) -> Command:
    """Adds --server, --kubeconfig, --context and -v; the command is called with `access`."""

    @click.option("--server", metavar="URL", help="API server, used without credentials.")
    @click.option(
        "--kubeconfig",
        metavar="FILE",
        type=click.Path(path_type=Path),
        help="Default: $KUBECONFIG, then ~/.kube/config.",
    )
    @click.option("--context", metavar="NAME", help="Context of the kubeconfig.")
    @verbose_option
    @functools.wraps(command)
    def with_access(
        *, server: str | None, kubeconfig: Path | None, context: str | None, **others: Any
    ) -> None:
        command(access=Access(server=server, kubeconfig=kubeconfig, context=context), **others)

    return with_access


def layout_options(command: Command) -> Command:
    """Adds NAME..., -o and --no-headers; the command is called with `names` and `layout`."""

    @click.argument("names", metavar="[NAME]...", nargs=-1)
    @click.option(
        "-o",
        "--output",
        type=click.Choice(["table", "wide", "name", "json", "yaml"]),
        default="table",
        show_default=True,
    )
    @click.option("--no-headers", is_flag=True, help="Leave out the line of column names.")
    @functools.wraps(command)
    def with_layout(
        *, names: tuple[str, ...], output: Any, no_headers: bool, **others: Any
    ) -> None:
        layout = Layout(output=output, headers=not no_headers, single=len(names) == 1)
        command(names=names, layout=layout, **others)

    return with_layout


def namespace_options(command: Command) -> Command:
    """Adds -n and -A; the command is called with `namespace`, None for all of them."""

    @click.option("-n", "--namespace", metavar="NAME", default="default", show_default=True)
    @click.option("-A", "--all-namespaces", is_flag=True)
    @functools.wraps(command)
    def with_namespace(*, namespace: str, all_namespaces: bool, **others: Any) -> None:
        command(namespace=None if all_namespaces else namespace, **others)

    return with_namespace
