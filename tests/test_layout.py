"""The floors of the package: a module imports from those below it only."""
import ast
import re
import sys
from importlib.metadata import packages_distributions, requires
from importlib.util import resolve_name

from conftest import ROOT

PACKAGE = ROOT / 'cac_mmseg'
METHOD = {
    'functional', 'cac_module', 'cac_head', 'baselines', 'checks', 'errors',
    'fused', 'intact', 'projection', 'registry', 'state_dict'
}
OPENERS = 'Image.open', 'webbrowser.open'  # of no text
# what each part of the package may import from
FLOORS = {
    **dict.fromkeys(METHOD, set()),  # but for those below
    'ops': {'ops'},
    'functional': {'checks', 'ops'},
    'fused': {'checks', 'functional', 'intact', 'ops', 'projection'},
    'cac_module':
    {'checks', 'functional', 'fused', 'intact', 'projection', 'state_dict'},
    'cac_head': {'cac_module', 'checks', 'intact', 'registry', 'state_dict'},
    'baselines': {'cac_module', 'checks', 'functional'},
    'stack': {'errors', 'ops', 'stack'},
    'datasets': {'checks', 'datasets', 'stack'},
    'attribution': {'attribution', 'ops', 'stack', *METHOD},
    'drawing': {'attribution', 'drawing', 'errors', 'stack'},
    'hooks': {
        'attribution', 'cac_head', 'checks', 'drawing', 'errors', 'hooks',
        'intact', 'stack'
    },
    'deploy':
    {'datasets', 'deploy', 'drawing', 'hooks', 'ops', 'stack', *METHOD},
    'commands': {
        'attribution', 'commands', 'datasets', 'deploy', 'drawing', 'hooks',
        'ops', 'stack', *METHOD
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


FILES = [path for path in PACKAGE.rglob('*.py') if '.mim' not in path.parts]


def test_imports_go_down():
    for path in FILES:
        floor = path.relative_to(PACKAGE).parts[0].removesuffix('.py')
        if not floor.startswith('__'):
            above = imports(path) - FLOORS[floor] - {'__version__'}
            assert not above, f'{path} imports from {above}'


def test_the_package_imports_no_tool():
    """Tools import the package, never the other way."""
    for path in FILES:
        tools = [name for name in modules(path) if name.startswith('tools')]
        assert not tools, f'{path} imports {tools}'


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
        elif name == 'open' and called not in OPENERS:
            # the mode is the second argument of open, the first of Path.open
            modes = [ast.unparse(argument) for argument in node.args]
            modes += [ast.unparse(keyword.value) for keyword in node.keywords]
            if not any('b' in mode for mode in modes[called == 'open':]):
                yield node.lineno


def test_text_is_read_and_written_in_utf_8():
    """Whatever the locale: a path can hold any letters."""
    for path in FILES:
        assert not [*without_encoding(path)], path


def test_the_root_is_the_method():
    names = {path.stem for path in PACKAGE.glob('*.py')}
    assert names == {'__init__', '__main__', *METHOD}


def test_what_is_imported_is_declared():
    """What only another package happens to bring may go at any time."""
    names = set()
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {name.name.split('.')[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names.add(node.module.split('.')[0])
    declared = {
        re.match(r'[\w-]+', requirement)[0]
        for requirement in requires('cacnet-mmseg')
    }
    brought_by = packages_distributions()
    # each stack has its own, which one config of ours needs, and asks for
    names -= {*sys.stdlib_module_names, 'cac_mmseg', 'mmpretrain'}
    for name in names:
        assert declared & {*brought_by.get(name, [name])}, name
