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
LINK = re.compile(r'\]\(([^)]+)\)|src="([^"]+)"')


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


def test_code_and_links_of_the_web_stay():
    text = '```\nx = y[0](docs)\n```\n[a](https://a.org) [b](docs/b.md#c)'
    assert BUILD['absolute'](text, URL, TAG) == text.replace(
        'docs/b.md', f'{URL}/blob/{TAG}/docs/b.md')
    picture = BUILD['absolute']('[![a](b.png)](c.md) ![d](e.svg)', URL, TAG)
    raw, page = f'{URL}/raw/{TAG}', f'{URL}/blob/{TAG}'
    assert picture == f'[![a]({raw}/b.png)]({page}/c.md) ![d]({raw}/e.svg)'


def test_everything_names_one_version():
    BUILD['check'](ROOT, f'v{cac_mmseg.__version__}')
    with pytest.raises(
            SystemExit, match='tag v9.9: cac_mmseg/__init__.py has'):
        BUILD['check'](ROOT, 'v9.9')
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


def test_a_tag_builds_and_publishes():
    release = WORKFLOWS['release']
    assert release[True] == dict(push=dict(tags=['v*']))  # YAML's "on"
    build, publish = release['jobs'].values()
    runs = [step['run'] for step in build['steps'] if 'run' in step]
    assert runs[-1].startswith('.ci/build ')
    # trusted publishing: a token of this job, and no secret
    assert publish['permissions'] == {'id-token': 'write'}
    assert publish['needs'] == 'build' and publish['environment'] == 'pypi'
    assert publish['steps'][-1]['uses'].startswith(
        'pypa/gh-action-pypi-publish@')
    assert 'secrets' not in str(release)
    kept, taken = build['steps'][-1]['with'], publish['steps'][0]['with']
    assert kept == taken


def test_workflows_run_files_that_are_there():
    files = subprocess.check_output(['git', 'ls-files', '-s', '.ci'],
                                    cwd=ROOT,
                                    text=True)
    named = {
        name
        for workflow in WORKFLOWS.values()
        for job in workflow['jobs'].values()
        for step in job['steps']
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
