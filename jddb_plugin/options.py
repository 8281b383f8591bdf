"""Option mappings -> checked, frozen dataclasses."""
from __future__ import annotations

import collections.abc
import dataclasses
import inspect
import re
import typing
from typing import TYPE_CHECKING, Any, Callable, Iterable, Mapping, Type, TypeVar, Union

from jddb_plugin.checks import OptionError, nearest

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

#: Keys of a data set's section that the toolbox or its loader reads.
HOST_KEYS = ('name', 'type', 'phase', 'scale', 'mode', 'batch_size_per_gpu', 'num_worker_per_gpu', 'use_shuffle',
             'dataset_enlarge_ratio', 'prefetch_mode', 'num_prefetch_queue', 'pin_memory', 'persistent_workers')
#: Units of sizes.
_UNITS = {'': 1, 'k': 1 << 10, 'm': 1 << 20, 'g': 1 << 30, 't': 1 << 40}

T = TypeVar('T', bound='DataclassInstance')
O = TypeVar('O', bound='Options')  # noqa: E741


@dataclasses.dataclass(frozen=True)
class Options:
    """Base of option classes: frozen dataclasses whose types are checked when they are made, and whose values in :meth:`check`.

    A field without a default is required. Messages name the field; :meth:`read` puts the section in front. The metadata of a
    field may hold, for the command line (:mod:`jddb_plugin.cli.arguments`), ``help``, ``metavar``, ``group``, ``choices``
    and ``parse`` (text to value).

    Raises:
        OptionError: a value has the wrong type, or cannot be used.
    """

    def __post_init__(self) -> None:
        _check_types(self)
        self.check()

    def check(self) -> None:
        """Raise OptionError for a value that cannot be used."""

    @classmethod
    def read(cls: Type[O], options: Mapping[str, Any], where: str, *, ignore: Iterable[str] = ()) -> O:
        """Build from section ``where`` of an option file, see :func:`read_options`."""
        return read_options(cls, options, where, ignore=ignore)

    @classmethod
    def parse(cls: Type[O], texts: Mapping[str, str]) -> O:
        """Build from the texts of a command line.

        Raises:
            OptionError: a text cannot be read as what its field holds, or the value cannot be used.
        """
        fields = {field.name: field for field in dataclasses.fields(cls)}
        values = {}
        for name, text in texts.items():
            parse = fields[name].metadata.get('parse')
            values[name] = _from_text(text, _hints(cls)[name], name) if parse is None else parse(text)
        return cls(**values)


def option(default: Any = dataclasses.MISSING, **metadata: Any) -> Any:
    """A field of :class:`Options` with what the command line shows of it."""
    return dataclasses.field(default=default, metadata=metadata)


def read_options(cls: Type[T], options: Mapping[str, Any], where: str, *, ignore: Iterable[str] = ()) -> T:
    """Build the dataclass ``cls``, best one of :class:`Options`, from a section of an option file.

    Args:
        cls: fields without a default are required.
        options: the section.
        where: its name in messages, e.g. ``datasets.train``.
        ignore: keys of the section that somebody else reads.

    Raises:
        OptionError: a key is unknown, with the nearest known one, or missing, or a value cannot be used.
    """
    fields = {field.name: field for field in dataclasses.fields(cls)}
    check_keys(options, [*fields, *ignore], where)
    for name, field in fields.items():
        if name not in options and field.default is field.default_factory is dataclasses.MISSING:
            raise OptionError(f"{where}: '{name}' is missing; expected {_describe(_hints(cls)[name])}.")
    try:
        result = cls(**{name: options[name] for name in fields if name in options})
        if not isinstance(result, Options):
            _check_types(result)
    except OptionError as error:
        raise error.within(where) from error
    return result


def _check_types(options: Any) -> None:
    for name, hint in _hints(type(options)).items():
        value = getattr(options, name)
        if not _fits(value, hint):
            raise OptionError(f'expected {_describe(hint)}, got {value!r}.', field=name)


def _hints(cls: type) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def _from_text(text: str, hint: Any, name: str) -> Any:
    """Value of a text for a field that holds a number or a text."""
    wanted = [part for part in (typing.get_args(hint) or (hint,)) if part is not type(None)]
    if wanted == [str]:
        return text
    kind = wanted[0]
    try:
        if len(text) > 40:
            raise ValueError
        return kind(text)
    except ValueError:
        raise OptionError(f"expected {_describe(kind)}, got '{text}'.", field=name) from None


def check_keys(options: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    """Raise OptionError for the first key of ``options`` that is not ``known``."""
    known = list(known)
    for key in options:
        if key not in known:
            raise OptionError(f"{where}: unknown key '{key}'; {nearest(str(key), known)}")


def _fits(value: Any, hint: Any) -> bool:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if origin is Union:
        return any(_fits(value, argument) for argument in arguments)
    if origin is tuple and Ellipsis not in arguments:
        return isinstance(value, (list, tuple)) and len(value) == len(arguments) and all(map(_fits, value, arguments))
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
    if origin is tuple and Ellipsis not in arguments:
        return '(' + ', '.join(map(_describe, arguments)) + ')'
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


def parse_memory(text: str) -> int:
    """Bytes of '2G', '1500M', '1.5 GB' and the like, in units of 1024."""
    match = re.fullmatch(r'\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?\s*', text, re.IGNORECASE)
    if match is None or not float(match[1]):
        raise OptionError(f"expected a size such as 2G or 1500M, got '{text}'.", field='memory')
    return int(min(float(match[1]) * _UNITS[match[2].lower()], 1 << 60))
