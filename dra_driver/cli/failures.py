"""What a user sees when something fails: one line about what, which object and why, and one about what to do.

Exit codes: 0 done, 1 failed, 2 wrong usage (click's). A traceback only with -v.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import TypeVar

import click

from dra_driver.model.errors import (
    DraError,
    Forbidden,
    InputError,
    Invalid,
    NotFound,
    SettingsError,
    Unavailable,
)

Command = TypeVar("Command", bound=Callable[..., object])


class TimeIsUp(DraError):
    """What a command waited for did not happen in the time that it was given."""

    reason = "TimeIsUp"


_ADVICE: tuple[tuple[type[DraError], str], ...] = (
    (SettingsError, "name the cluster with --server URL, --kubeconfig FILE or --context NAME"),
    (InputError, "correct what was written there and run this again"),
    (TimeIsUp, "end what is named there, or wait longer with --timeout"),
    (NotFound, "leave out the name to see what there is; -A looks into all namespaces"),
    (Forbidden, "`kubectl auth can-i --list` shows what you may do"),
    (Invalid, "check the names and the value of -l"),
    (Unavailable, "check --server, --kubeconfig and --context; `dra version` tries the connection"),
    (DraError, "run this again as `dra -v ...` to see where it comes from"),
)
_BUG = "this is a bug in dra: run it again as `dra -v ...` and report the traceback"


def describe(error: Exception) -> str:
    """`error: <what, object, cause>`, and a line of advice."""
    advice = next((words for kind, words in _ADVICE if isinstance(error, kind)), None)
    if advice is None:
        return f"error: internal error: {type(error).__name__}: {error}\n{_BUG}"
    return f"error: {error}\n{advice}"


def verbose_option(command: Command) -> Command:
    """Adds -v, which may stand after any part of the command line."""
    return click.option(
        "-v",
        "--verbose",
        is_flag=True,
        expose_value=False,
        callback=_remember_verbose,
        help="Show tracebacks.",
    )(command)


class Tool(click.Group):
    """A command line whose failures are described and end with exit code 1."""

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; let click's own exceptions and a closed pipe through to click."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except Exception as error:
            if ctx.meta.get(__name__):
                traceback.print_exception(error)
            click.echo(describe(error), err=True)
            raise click.exceptions.Exit(1) from error


def _remember_verbose(ctx: click.Context, _option: click.Parameter, value: object) -> None:
    if value:
        ctx.meta[__name__] = True
