"""Arguments of a command line from a class of options."""
from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping
from typing import Any, Type, TypeVar

from jddb_plugin.checks import JDDBError, OptionError
from jddb_plugin.options import Options

O = TypeVar('O', bound=Options)  # noqa: E741

#: Those of :data:`jddb_plugin.ops.cfa.CFA_PATTERNS`, which needs torch.
CFA_PATTERNS = ('rggb', 'grbg', 'gbrg', 'bggr')


def add_options(groups: Mapping[str, Any], cls: Type[Options]) -> None:
    """Add an argument for each field that has a help text, to the group (or parser) that its metadata names.

    Arguments hold texts until :func:`read_arguments` parses them, so that messages are those of the class.
    """
    for field in dataclasses.fields(cls):
        data = field.metadata
        if 'help' in data:
            groups[data.get('group', '')].add_argument('--' + field.name.replace('_', '-'), help=data['help'],
                                                       choices=data.get('choices'), metavar=data.get('metavar'))


def read_arguments(args: argparse.Namespace, cls: Type[O], **defaults: str) -> O:
    """Options from the arguments that were given; ``defaults`` are texts for fields that were not.

    Raises:
        OptionError: a value cannot be used.
    """
    given = {field.name: getattr(args, field.name, None) for field in dataclasses.fields(cls)}
    return cls.parse({**defaults, **{name: text for name, text in given.items() if text is not None}})


def message_of(error: JDDBError, args: argparse.Namespace) -> str:
    """What an error says, with dashes before a field that is an argument of the command."""
    if isinstance(error, OptionError) and error.field is not None and error.field in args:
        return f"--{error.field.replace('_', '-')}: {error.message}"
    return str(error)
