"""Exceptions and small checks shared by every part of the plugin."""
from __future__ import annotations

import difflib
import functools
import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Callable, Iterable, Optional

from jddb_plugin.registration import broken_environment

if TYPE_CHECKING:  # the command line starts without torch
    from torch import Tensor


class JDDBError(Exception):
    """Base of all errors that a user can fix; entry points print them as one line."""


class ShapeError(JDDBError, ValueError):
    """A tensor or image has a shape that the operation cannot work on."""


class OptionError(JDDBError, ValueError):
    """An option is missing, misspelt or has a value that cannot be used.

    Args:
        message: what was expected, and what came.
        field: the option, which the whole message then begins with. A command line adds the dashes.
    """

    def __init__(self, message: str, *, field: Optional[str] = None) -> None:
        super().__init__(message if field is None else f'{field}: {message}')
        self.message, self.field = message, field

    def within(self, where: str) -> OptionError:
        """The same error of an option in section ``where``."""
        return self if self.field is None else OptionError(self.message, field=f'{where}.{self.field}')


class DataError(JDDBError, ValueError):
    """A file, folder or database is missing, unreadable or not what it should be."""


class CheckpointError(JDDBError, RuntimeError):
    """A checkpoint is missing, damaged or belongs to another configuration."""


class TrainingError(JDDBError, RuntimeError):
    """A training cannot go on."""


class ExportError(JDDBError, RuntimeError):
    """A network could not be exported, or what was written computes something else."""


def check_ndim(tensor: Tensor, layout: str, name: str) -> None:
    """Raise ShapeError unless ``tensor`` has as many dimensions as ``layout`` names.

    Args:
        tensor: any tensor.
        layout: dimension names separated by spaces, e.g. ``'B N C H W'``.
        name: how the tensor is called in the message.
    """
    if tensor.ndim != len(layout.split()):
        expected = '[' + layout.replace(' ', ', ') + ']'
        raise ShapeError(f'{name}: expected a tensor of shape {expected}, got {list(tensor.shape)}.')


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint that names the known word closest to ``name``, or lists all of them."""
    known = sorted(str(k) for k in known)
    close = difflib.get_close_matches(str(name), known, n=1)
    if close:
        return f"did you mean '{close[0]}'?"
    return 'known: ' + (', '.join(known) if known else 'none') + '.'


def optional_package(name: str, where: str) -> ModuleType:
    """Import a package that only some of the plugin's users need.

    Args:
        name: of the package, the same for import and pip.
        where: file that cannot be read or written without it, for the message.

    Raises:
        DataError: it is not installed or does not load, naming the command that installs it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise DataError(f"{where}: needs the package '{name}' ({error}); run: pip install {name}") from error


def one_line(text: str) -> str:
    """Text as a terminal can show it: names of files and clips may hold line breaks, control characters and no characters."""
    return ''.join(letter if letter.isprintable() else '\ufffd' for letter in text)


def one_line_errors(command: Callable[..., int]) -> Callable[..., int]:
    """Decorate a command: an error that the user can fix, or a package that is missing, becomes one line and exit status 2."""

    @functools.wraps(command)
    def run(*args: object, **kwargs: object) -> int:
        try:
            return command(*args, **kwargs)
        except JDDBError as error:
            message = str(error)
        except ImportError as error:
            message = str(broken_environment(error))
        sys.stderr.write(one_line(f'error: {message}') + '\n')
        return 2

    return run


def check_choice(value: object, choices: Iterable[str], where: str) -> None:
    """Raise OptionError unless ``value`` is one of ``choices``."""
    choices = list(choices)
    if value not in choices:
        raise OptionError(f"'{value}' is not a valid choice; {nearest(str(value), choices)}", field=where)
