"""docs/raw.md names a test for every kind: they are there."""
import re

from tests.conftest import ROOT


def test_tests_that_the_document_names_exist():
    text = (ROOT / 'docs' / 'raw.md').read_text()
    defined = {name for file in (ROOT / 'tests').rglob('test_*.py') for name in re.findall(r'def (test_\w+)', file.read_text())}
    files = {file.stem for file in (ROOT / 'tests').rglob('test_*.py')}
    named = re.findall(r'(?:(test_\w+)::)?(test_\w+)(\.\.\.)?', text)
    assert len(named) > 50
    for file, name, is_short in named:
        assert not file or file in files, file
        assert name in files or any(other == name or is_short and other.startswith(name) for other in defined), name
