"""Option files: read safely, inherited, overridden, resolved.

Beyond what the toolbox's own loader does, a file may name others to inherit from (``_base_: other.yml``, or a shipped one,
``_base_: train/jddb_reds``), and the
command line may override single keys (``--set train.total_iter=10``). Merging is mmengine's ``Config``: mappings
merge key by key, anything else replaces, and ``_delete_: true`` in a mapping drops what it would have merged into.

YAML is read by a safe loader: no tag can run code. A plain scalar that looks like a number but that YAML takes for
text (``1e-4``) is refused, because the toolbox would silently get a string.
"""
from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Iterable, Mapping, Optional

import yaml
from mmengine.config import Config

from jddb_plugin.checks import OptionError, nearest

_NUMBER = re.compile(r'[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$')


class _FileLoader(yaml.SafeLoader):
    """Refuses plain scalars that were meant as numbers, and keys that appear twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key_node, _ in node.value:
            if key_node.value in seen and key_node.value != '<<':
                raise OptionError(f"line {key_node.start_mark.line + 1}: '{key_node.value}' appears twice.")
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)


def _construct_text(loader: _FileLoader, node: yaml.ScalarNode) -> str:
    if node.style is None and _NUMBER.fullmatch(node.value):
        raise OptionError(f"line {node.start_mark.line + 1}: YAML reads {node.value} as text, not as a number; "
                          f"write {_spelling(node.value)} (or quote it if text is meant).")
    return node.value


def _spelling(number: str) -> str:
    """A spelling of ``number`` that YAML 1.1 takes for a number: dot in the mantissa, sign in the exponent."""
    mantissa, exponent = re.split('[eE]', number)
    if '.' not in mantissa:
        mantissa += '.0'
    return f'{mantissa}e{exponent if exponent[0] in "+-" else "+" + exponent}'


_FileLoader.add_constructor('tag:yaml.org,2002:str', _construct_text)


class _ValueLoader(yaml.SafeLoader):
    """Reads one value of the command line, where 1e-4 is a number."""


_ValueLoader.add_implicit_resolver('tag:yaml.org,2002:float', _NUMBER, list('-+.0123456789'))


def parse_override(text: str, *, separator: str = '.') -> tuple[str, Any]:
    """Parse ``key.path=value``; the value may itself contain ``=``.

    Args:
        text: the argument.
        separator: between the keys of the path; the toolbox's ``--force_yml`` uses a colon.

    Raises:
        OptionError: there is no ``=``, no key, or the value is not YAML.
    """
    key, equals, value = text.partition('=')
    key = key.strip()
    if not equals or not key:
        raise OptionError(f"'{text}': expected KEY=VALUE, e.g. train{separator}total_iter=10.")
    if separator == ':' and value.strip().lower() == 'none':  # the toolbox's spelling of ~
        return key.replace(separator, '.'), None
    try:
        return key.replace(separator, '.'), yaml.load(value, Loader=_ValueLoader)
    except (yaml.YAMLError, ValueError) as error:
        raise OptionError(f"'{text}': the value is not valid YAML ({_first_line(error)}).") from error


def _first_line(error: Exception) -> str:
    return ' '.join(str(error).split())[:200]


def _read_file(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding='utf-8')
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f'{path}: cannot be read ({_first_line(error)}).') from error
    try:
        options = yaml.load(text, Loader=_FileLoader)
    except OptionError as error:
        raise OptionError(f'{path}, {error}') from error
    except (yaml.YAMLError, ValueError) as error:
        raise OptionError(f'{path}: not valid, safe YAML ({_first_line(error)}).') from error
    if not isinstance(options, dict):
        raise OptionError(f'{path}: expected a mapping of options, got {type(options).__name__}.')
    return options


def _base_file(path: Path, base: str) -> Path:
    """A file that ``path`` inherits from: beside it, or shipped, e.g. train/jddb_reds."""
    beside = (path.parent / base).resolve()
    shipped = shipped_options() / f'{base}.yml'
    return shipped if shipped.is_file() and not beside.is_file() else beside


def _load(path: Path, chain: tuple[Path, ...]) -> Config:
    if path in chain:
        raise OptionError(f"{path}: inherits from itself: {' -> '.join(str(p) for p in (*chain, path))}.")
    options = _read_file(path)
    bases = options.pop('_base_', [])
    merged = Config()
    for base in [bases] if isinstance(bases, str) else bases:
        merged.merge_from_dict(_load(_base_file(path, base), (*chain, path)).to_dict())
    _merge(merged, options, str(path))
    return merged


def _merge(config: Config, options: Mapping[str, Any], where: str) -> None:
    try:
        config.merge_from_dict(dict(options))
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise OptionError(f'{where}: cannot be merged ({_first_line(error)}).') from error


def shipped_options() -> Path:
    """Folder of the option files that come with the package: in it once it is installed, else beside it in a checkout."""
    package = Path(__file__).resolve().parent
    installed = package / 'option_files'
    return installed if installed.is_dir() else package.parent / 'options'


def find_options(name: str, phase: str) -> str:
    """Path of an option file that is given by its path, or by the name of a shipped one, e.g. jddb_reds or tables/w_ca.

    Args:
        name: as given.
        phase: 'train' or 'test', whose shipped files are meant.

    Raises:
        OptionError: there is no such file; the message names the nearest shipped one.
    """
    if Path(name).expanduser().is_file():
        return name
    folder = shipped_options() / phase
    shipped = {file.relative_to(folder).with_suffix('').as_posix(): file for file in folder.rglob('*.yml')}
    if name in shipped:
        return str(shipped[name])
    raise OptionError(f'{name}: no such option file, and none of that name is shipped; {nearest(name, shipped)}')


def load_options(path: str, overrides: Optional[Iterable[tuple[str, Any]]] = None) -> dict[str, Any]:
    """Read an option file with all it inherits from, then apply overrides.

    Args:
        path: YAML file.
        overrides: (dotted key, value) pairs, applied in order; numbers in a path index lists.

    Returns:
        Plain nested dicts and lists.

    Raises:
        OptionError: a file is missing, not safe YAML, or holds a number that YAML reads as text.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise OptionError(f'{path}: no such option file.')
    config = _load(file.resolve(), ())
    for key, value in overrides or ():
        _merge(config, {key: value}, f'override {key}')
    return config.to_dict()


def dump_options(options: Mapping[str, Any]) -> str:
    """YAML text that the toolbox's loader reads back to the same values."""
    return yaml.safe_dump(dict(options), sort_keys=False, default_flow_style=None, allow_unicode=True, width=110)
