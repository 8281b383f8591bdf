"""Option mappings -> checked, frozen dataclasses."""
from __future__ import annotations

import collections.abc
import dataclasses
import inspect
import typing
from typing import Any, Callable, Iterable, Mapping, Type, TypeVar, Union

from jddb_plugin.checks import OptionError, nearest

T = TypeVar('T')


def check_keys(options: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    """Raise OptionError for the first key of ``options`` that is not ``known``."""
    known = list(known)
    for key in options:
        if key not in known:
            raise OptionError(f"{where}: unknown key '{key}'; {nearest(str(key), known)}")


def read_options(cls: Type[T], options: Mapping[str, Any], where: str, *, ignore: Iterable[str] = ()) -> T:
    """Build the dataclass ``cls`` from a section of an option file.

    Args:
        cls: a frozen dataclass; fields without a default are required.
        options: the section.
        where: its name in messages, e.g. ``datasets.train``.
        ignore: keys of the section that somebody else reads.

    Raises:
        OptionError: a key is unknown or missing, or a value has the wrong type.
    """
    ignore = set(ignore)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    hints = typing.get_type_hints(cls)
    check_keys(options, [*fields, *ignore], where)
    values = {}
    for name, field in fields.items():
        if name in options:
            if not _fits(options[name], hints[name]):
                raise OptionError(f'{where}.{name}: expected {_describe(hints[name])}, got {options[name]!r}.')
            values[name] = options[name]
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise OptionError(f"{where}: '{name}' is missing; expected {_describe(hints[name])}.")
    return cls(**values)


def _fits(value: Any, hint: Any) -> bool:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if origin is Union:
        return any(_fits(value, argument) for argument in arguments)
    if origin in (list, tuple, collections.abc.Sequence):
        return isinstance(value, (list, tuple)) and all(_fits(v, arguments[0]) for v in value)
    if origin is dict or origin is collections.abc.Mapping or hint is dict:
        return isinstance(value, Mapping)
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def _describe(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Union:
        return ' or '.join(_describe(argument) for argument in arguments)
    if origin in (list, tuple, collections.abc.Sequence):
        return f'a list of {_describe(arguments[0])}'
    names = {int: 'an integer', float: 'a number', bool: 'true or false', str: 'text (in quotes if it looks like a number)',
             type(None): 'nothing (~)', dict: 'a mapping', collections.abc.Mapping: 'a mapping'}
    return names.get(origin or hint, str(hint))


def registered(registry: Any, options: Any, where: str) -> tuple[Any, dict[str, Any]]:
    """The class that a section's ``type`` names, and the section's other keys.

    Raises:
        OptionError: there is no ``type``, or it is not registered.
    """
    if not isinstance(options, Mapping) or 'type' not in options:
        raise OptionError(f"{where}: expected a mapping with a 'type', got {options!r}.")
    arguments = dict(options)
    kind = arguments.pop('type')
    for name in (kind, f'{kind}_basicsr'):
        if name in registry:
            return registry.get(name), arguments
    raise OptionError(f"{where}.type: '{kind}' is not registered; {nearest(kind, registry.keys())}")


def check_call(function: Callable[..., Any], arguments: Mapping[str, Any], where: str) -> None:
    """Check that ``function`` (or class) accepts keyword ``arguments``, without calling it.

    Raises:
        OptionError: an argument is unknown, with the nearest known one, a required one is missing, or one of our own
            functions gets a value of the wrong type.
    """
    parameters = inspect.signature(function).parameters.values()
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        check_keys(arguments, [p.name for p in parameters], where)
    required = [p.name for p in parameters if p.default is p.empty and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    for name in required:
        if name not in arguments:
            raise OptionError(f"{where}: '{name}' is missing.")
    if function.__module__.startswith('jddb_plugin.'):
        hints = typing.get_type_hints(function.__init__ if inspect.isclass(function) else function)
        for name, value in arguments.items():
            if name in hints and not _fits(value, hints[name]):
                raise OptionError(f'{where}.{name}: expected {_describe(hints[name])}, got {value!r}.')
