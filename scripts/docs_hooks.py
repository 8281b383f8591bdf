"""Hooks of mkdocs: sections of the README on the site, so that they are written once, and references of docstrings as links."""
from __future__ import annotations

import re
from pathlib import Path
from typing import Any

_README = Path(__file__).resolve().parents[1] / 'README.md'
_INCLUDE = re.compile(r'<!-- README: (.+?) -->')
#: What docstrings say as :func:`name` becomes code, and a link where the name is on the site.
_ROLE = re.compile(r':(?:func|class|meth|mod|data|attr):<code>~?([\w.]+)</code>')


def _section(title: str) -> str:
    """A section of the README with its heading, links relative to docs/."""
    text = _README.read_text(encoding='utf-8')
    found = re.search(rf'^## {re.escape(title)}\n.*?(?=^## |\Z)', text, re.MULTILINE | re.DOTALL)
    if found is None:
        raise ValueError(f"{_README}: has no section '{title}', which a page of docs/ includes.")
    section = re.sub(r'\n\[Architecture\]\(.*', '', found[0])
    return section.replace('](docs/', '](')


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put sections of the README where ``<!-- README: Title -->`` stands."""
    return _INCLUDE.sub(lambda match: _section(match[1]), markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Roles of docstrings -> links that mkdocstrings resolves where it can."""
    return _ROLE.sub(r'<autoref optional identifier="\1"><code>\1</code></autoref>', html)
