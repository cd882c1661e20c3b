"""What is published: its README, versions, the workflows that build it."""
import re
import runpy
import subprocess
from itertools import chain

import pytest
import yaml
from conftest import ROOT

import cac_mmseg
from cac_mmseg.commands import doctor

BUILD = runpy.run_path(str(ROOT / '.ci/build'))
WORKFLOWS = {
    path.stem: yaml.safe_load(path.read_text())
    for path in (ROOT / '.github/workflows').glob('*.yml')
}
URL, TAG = 'https://example.org/owner/name', 'v1.2.3'
LINK = re.compile(r'\]\(([^)]+)\)|(?:src|href)="([^"]+)"')


def links(text):
    return [*filter(None, chain(*LINK.findall(text)))]


def test_links_of_the_readme_hold_on_an_index():
    text = (ROOT / 'README.md').read_text()
    before, after = links(text), links(BUILD['absolute'](text, URL, TAG))
    assert len(after) == len(before) > 30
    for old, new in zip(before, after):
        if old.startswith('http'):
            assert new == old
            continue
        kind = 'raw' if old.endswith(('.png', '.svg')) else 'blob'
        assert new == f'{URL}/{kind}/{TAG}/{old}'
        assert (ROOT / old.partition('#')[0]).is_file()


@pytest.mark.parametrize('text', [
    '```\nx = y[0](docs)\n```', '`x[0](docs)`', '[a](https://a.org)',
    '[a](#install)', '[a](mailto:a@b.org)'
])
def test_code_and_other_links_stay(text):
    assert BUILD['absolute'](text, URL, TAG) == text
    link = f'{text}\n[`b`](docs/b.md#c)'
    assert BUILD['absolute'](link, URL,
                             TAG) == link.replace('docs/',
                                                  f'{URL}/blob/{TAG}/docs/')


def test_pictures_are_raw():
    picture = BUILD['absolute']('[![a](b.png)](c.md) ![d](e.jpg)', URL, TAG)
    raw, page = f'{URL}/raw/{TAG}', f'{URL}/blob/{TAG}'
    assert picture == f'[![a]({raw}/b.png)]({page}/c.md) ![d]({raw}/e.jpg)'


def test_everything_names_one_version():
    BUILD['check'](ROOT, f'v{cac_mmseg.__version__}')
    changes = re.findall(r'^## (\S+) \((.*)\)$',
                         (ROOT / 'CHANGELOG.md').read_text(), re.MULTILINE)
    version, date = changes[0]
    unreleased = date == 'unreleased'
    assert cac_mmseg.__version__ == version + '.dev0' * unreleased
    citation = yaml.safe_load((ROOT / 'CITATION.cff').read_text())
    cited = citation['version'], str(citation['date-released'])
    assert cited == changes[unreleased]  # the last one released
    paper = citation['preferred-citation']
    page = (ROOT / 'README.md').read_text().split()
    assert paper['title'] in ' '.join(page)


@pytest.mark.parametrize('file, old, new', [
    ('cac_mmseg/__init__.py', "'1.2.0'", "'1.2'"),
    ('CITATION.cff', '\nversion: 1.2.0', '\nversion: 1.1.0'),
    ('CHANGELOG.md', '(2026-01-02)', '(unreleased)'),
])
def test_a_file_of_another_version_is_named(tmp_path, file, old, new):
    files = {
        'cac_mmseg/__init__.py': "\n__version__ = '1.2.0'\n",
        'CITATION.cff': 'cff-version: 1.2.0\nversion: 1.2.0\n',
        'CHANGELOG.md': '# Changelog\n\n## 1.2.0 (2026-01-02)\n'
    }
    (tmp_path / 'cac_mmseg').mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    BUILD['check'](tmp_path, 'v1.2.0')
    with pytest.raises(SystemExit, match='tag x1.2.0, such as v0.2.0'):
        BUILD['check'](tmp_path, 'x1.2.0')
    assert old in files[file]
    (tmp_path / file).write_text(files[file].replace(old, new))
    with pytest.raises(SystemExit, match=f'{file} has no'):
        BUILD['check'](tmp_path, 'v1.2.0')


def test_a_tag_builds_and_publishes():
    release = WORKFLOWS['release']
    # YAML's "on"; no version in development
    assert release[True] == dict(push=dict(tags=['v[0-9]+.[0-9]+.[0-9]+']))
    tests, build, publish = release['jobs'].values()
    assert tests['uses'] == './.github/workflows/tests.yml'
    assert 'workflow_call' in WORKFLOWS['tests'][True]
    assert build['needs'] == 'tests'
    runs = [step['run'] for step in build['steps'] if 'run' in step]
    assert runs[-1].startswith('.ci/build ')
    # trusted publishing: a token of this job, and no secret
    assert publish['permissions'] == {'id-token': 'write'}
    assert publish['needs'] == 'build' and publish['environment'] == 'pypi'
    assert publish['steps'][-1]['uses'].startswith(
        'pypa/gh-action-pypi-publish@')
    assert 'secrets' not in str(release)
    kept, taken = build['steps'][-1]['with'], publish['steps'][0]['with']
    assert kept == taken | {'if-no-files-found': 'error'}


def test_workflows_run_files_that_are_there():
    files = subprocess.check_output(['git', 'ls-files', '-s', '.ci'],
                                    cwd=ROOT,
                                    text=True)
    named = {
        name
        for workflow in WORKFLOWS.values()
        for job in workflow['jobs'].values()
        for step in job.get('steps', ())
        for name in re.findall(r'\.ci/[\w-]+', step.get('run', ''))
    }
    assert named == {'.ci/run', '.ci/build', '.ci/original-stack'}
    for name in named:
        assert re.search(rf'^100755 .*\t{name}$', files, re.MULTILINE)


def test_what_is_promised_is_tested():
    """By the workflows, and in the README's table."""
    jobs = WORKFLOWS['tests']['jobs']
    pythons = jobs['onedl']['strategy']['matrix']['python']
    torches = jobs['torch']['strategy']['matrix']['torch']
    project = (ROOT / 'pyproject.toml').read_text()
    prefix = 'Programming Language :: Python :: '
    assert pythons == re.findall(rf'"{prefix}(3\.\d+)"', project)
    assert f'requires-python = ">={pythons[0]}"' in project
    assert f'"torch>={torches[0].removesuffix(".0")}"' in project
    assert [doctor.PYTHON,
            doctor.TORCH] == [pythons[-1], torches[-1].removesuffix('.0')]
    rows = re.findall(r'^\| (OneDL|OpenMMLab) \| (\S+) \| (\S+) \|',
                      (ROOT / 'README.md').read_text(), re.MULTILINE)
    assert {python for _, python, _ in rows} == {*pythons}
    assert {torch for *_, torch in rows} >= {*torches}
