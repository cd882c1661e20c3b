"""The floors of the package: a module imports from those below it only."""
import ast
import re
import sys
from importlib.metadata import packages_distributions, requires
from importlib.util import resolve_name

import pytest
from conftest import ROOT

PACKAGE = ROOT / 'cac_mmseg'
METHOD = {
    'functional', 'cac_module', 'cac_head', 'baselines', 'checks', 'errors',
    'intact', 'projection', 'registry', 'state_dict'
}
# what each part of the package may import from
FLOORS = {
    'errors': set(),
    'checks': set(),
    'projection': set(),
    'intact': set(),
    'registry': set(),
    'state_dict': set(),
    'ops': {'ops'},
    'functional': {'checks', 'ops'},
    'cac_module': {'checks', 'functional', 'projection', 'state_dict'},
    'cac_head': {'cac_module', 'checks', 'intact', 'registry', 'state_dict'},
    'baselines': {'cac_module', 'checks', 'functional'},
    'stack': {'errors', 'ops', 'stack'},
    'datasets': {'checks', 'datasets', 'stack'},
    'attribution': {'attribution', 'ops', 'stack', *METHOD},
    'drawing': {'attribution', 'drawing', 'errors', 'stack'},
    'hooks': {'attribution', 'checks', 'drawing', 'errors', 'hooks', 'stack'},
    'commands': {
        'attribution', 'commands', 'datasets', 'drawing', 'hooks', 'ops',
        'stack', *METHOD
    },
}


def modules(path):
    """What a file imports, wherever in it, by full names."""
    module = '.'.join(path.relative_to(ROOT).with_suffix('').parts)
    package = module.rpartition('.')[0]
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = resolve_name('.' * node.level + (node.module or ''),
                                package) if node.level else node.module
            yield from (f'{base}.{alias.name}' for alias in node.names)


def imports(path):
    """Parts of the package that a file imports."""
    return {
        name.split('.')[1]
        for name in modules(path) if name.startswith('cac_mmseg.')
    }


FILES = [
    path for path in sorted(PACKAGE.rglob('*.py')) if
    '.mim' not in path.parts and path.parent != PACKAGE or path.stem in METHOD
]


@pytest.mark.parametrize(
    'path', FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path):
    floor = path.relative_to(PACKAGE).parts[0].removesuffix('.py')
    above = imports(path) - FLOORS[floor] - {'__version__'}
    assert not above, f'{path} imports from {above}'


@pytest.mark.parametrize(
    'path', [*PACKAGE.rglob('*.py')],
    ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_package_imports_no_tool(path):
    """Tools import the package, never the other way."""
    assert 'tools' not in {name.split('.')[0] for name in modules(path)}


def without_encoding(path):
    """Lines that read or write text in the encoding of the locale."""
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if not isinstance(node, ast.Call) or 'encoding' in [
                keyword.arg for keyword in node.keywords
        ]:
            continue
        called = ast.unparse(node.func)
        name = called.rpartition('.')[2]
        if name in ('read_text', 'write_text') and '.' in called:
            yield node.lineno
        elif name == 'open' and called != 'Image.open':
            # the mode is the second argument of open, the first of Path.open
            modes = [ast.unparse(argument) for argument in node.args]
            modes += [ast.unparse(keyword.value) for keyword in node.keywords]
            if not any('b' in mode for mode in modes[called == 'open':]):
                yield node.lineno


@pytest.mark.parametrize(
    'path',
    [path for path in PACKAGE.rglob('*.py') if '.mim' not in path.parts],
    ids=lambda path: str(path.relative_to(PACKAGE)))
def test_text_is_read_and_written_in_utf_8(path):
    """Whatever the locale: a path can hold any letters."""
    assert not [*without_encoding(path)]


def test_the_root_is_the_method():
    names = {path.stem for path in PACKAGE.glob('*.py')}
    assert names == {'__init__', '__main__', *METHOD}


def test_what_is_imported_is_declared():
    """What only another package happens to bring may go at any time."""
    nodes = [
        node for path in PACKAGE.rglob('*.py')
        for node in ast.walk(ast.parse(path.read_text()))
    ]
    names = {
        n.name
        for node in nodes if isinstance(node, ast.Import) for n in node.names
    }
    names |= {
        node.module
        for node in nodes
        if isinstance(node, ast.ImportFrom) and not node.level
    }
    names = {name.split('.')[0] for name in names}
    declared = {
        re.match(r'[\w-]+', requirement)[0]
        for requirement in requires('cacnet-mmseg')
    }
    brought_by = packages_distributions()
    # each stack has its own, which one config of ours needs, and asks for
    names -= {*sys.stdlib_module_names, 'cac_mmseg', 'mmpretrain'}
    for name in names:
        assert declared & {*brought_by.get(name, [name])}, name
