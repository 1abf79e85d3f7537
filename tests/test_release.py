"What stands around the library: citation, forms, hooks, and the way to a release, whose commands are run as far as they may be."
import os, re, shutil, subprocess, sys, tarfile
from pathlib import Path

import pytest, yaml

from conftest import call, copy_of_sources
from test_package import USE, cfg, metadata_of

root = Path(__file__).resolve().parents[1]


def read(name): return yaml.safe_load((root/name).read_text(encoding='utf-8'))


# --- citation: the Citation File Format 1.2.0 -----------------------------------------------------------------------------

CFF = {*'abstract authors cff-version commit contact date-released doi identifiers keywords license license-url message preferred-citation references repository '
       'repository-artifact repository-code title type url version'.split()}
PERSON = {*'family-names given-names name-particle name-suffix affiliation address alias city country email fax orcid post-code region tel website'.split()}
ENTITY = {*'name address alias city country date-end date-start email fax location orcid post-code region tel website'.split()}
REFERENCE = CFF-{'cff-version', 'message', 'preferred-citation', 'references'} | {*'collection-title conference institution issue journal month notes pages publisher '
                                                                                'scope start end status volume year'.split()}
TYPES = {'article', 'book', 'conference', 'conference-paper', 'generic', 'report', 'software', 'software-code', 'thesis', 'unpublished', 'website'}


def author_problems(authors, where):
    "What is wrong with a list of authors: each is a person or an entity."
    if not isinstance(authors, list) or not authors: yield f'{where}: no authors'
    for a in authors or []:
        if 'name' in a: odd = {*a}-ENTITY
        else: odd = {*a}-PERSON or (set() if {'family-names', 'given-names', 'alias'} & {*a} else {'no name'})
        if odd or not all(isinstance(v, str) and v.strip() for v in a.values()): yield f'{where}: {a} is neither a person nor an entity'


def cff_problems(cff):
    "What the format would refuse."
    missing = [k for k in ('cff-version', 'message', 'title', 'authors') if not cff.get(k)]
    if missing: yield f'{missing[0]} is missing'
    if cff.get('cff-version')!='1.2.0': yield 'cff-version is not 1.2.0'
    if odd := {*cff}-CFF: yield f'{sorted(odd)[0]} is no key of the format'
    if cff.get('type', 'software') not in ('software', 'dataset'): yield 'type'
    if not isinstance(cff.get('version', ''), str): yield 'version is not text'
    if not re.fullmatch(r'\d{4}-\d\d-\d\d', str(cff.get('date-released', '2000-01-01'))): yield 'date-released is no date'
    words = cff.get('keywords', ['x'])
    if not words or len({*words})<len(words): yield 'keywords'
    yield from author_problems(cff.get('authors'), 'software')
    for r in cff.get('references', []):
        lacking = [k for k in ('authors', 'title', 'type') if not r.get(k)]
        if lacking: yield f'a reference without {lacking[0]}'
        if r.get('type') not in TYPES: yield f'{r.get("type")} is no type of a reference'
        if odd := {*r}-REFERENCE: yield f'{sorted(odd)[0]} is no key of a reference'
        if 'doi' in r and not re.fullmatch(r'10\.\d{4,9}(\.\d+)?/\S+', r['doi']): yield 'doi'
        if not isinstance(r.get('year', 0), int): yield 'year is no number'
        yield from author_problems(r.get('authors'), 'reference')


def test_the_citation_is_valid(): assert not [*cff_problems(read('CITATION.cff'))]


def test_the_citation_says_what_settings_say():
    "The software as itself, and nothing about a release that there is not."
    cff = read('CITATION.cff')
    assert cff['version']==cfg['version'] and cff['type']=='software' and cff['license']=='Apache-2.0'
    assert cff['repository-code']==cfg['git_url'] and cff['url']==cfg['doc_host']+cfg['doc_baseurl']
    assert cff['keywords']==cfg['keywords'].split() and cff['title'].startswith(cfg['lib_name']) and cff['authors']==[{'name': cfg['author']}]
    version, day = re.search(r'^## (\S+) - (\S+)$', (root/'CHANGELOG.md').read_text(encoding='utf-8'), re.M).groups()
    assert version==cfg['version'], 'the head of CHANGELOG.md is another version'
    assert str(cff.get('date-released', 'unreleased'))==day


def test_the_paper_is_the_reference():
    paper, predecessor = read('CITATION.cff')['references']
    assert '2412.13732' in paper['url'] and 'Cross-interaction' in paper['title'] and '2112.01037' in predecessor['url']
    assert all(w in read('CITATION.cff')['message'] for w in ('paper', 'software')), 'it asks for both'


@pytest.mark.parametrize('change, said', [
    (dict(authors=[]), 'authors is missing'), (dict(authors=[{'affiliation': 'x'}]), 'neither'), (dict(authors=[{'name': 'x', 'given-names': 'y'}]), 'neither'),
    ({'cff-version': '1.1.0'}, '1.2.0'), (dict(version=0.1), 'version'), (dict(date='2026'), 'date is no key'), ({'date-released': '2026'}, 'no date'),
    (dict(keywords=['a', 'a']), 'keywords'), (dict(references=[dict(title='t', authors=[dict(name='n')])]), 'without type'),
    (dict(references=[dict(type='paper', title='t', authors=[dict(name='n')])]), 'no type'), (dict(message=''), 'message')])
def test_an_invalid_citation_is_found(change, said): assert any(said in p for p in cff_problems(read('CITATION.cff') | change))


# --- forms ----------------------------------------------------------------------------------------------------------------

FORMS = sorted(p for p in (root/'.github'/'ISSUE_TEMPLATE').glob('*.yml') if p.name!='config.yml')
KINDS = {'markdown': {'value'}, 'textarea': {'label', 'description', 'placeholder', 'value', 'render'}, 'input': {'label', 'description', 'placeholder', 'value'},
         'dropdown': {'label', 'description', 'multiple', 'options', 'default'}, 'checkboxes': {'label', 'description', 'options'}}


def form_problems(form):
    "What GitHub would refuse of an issue form."
    for k in ('name', 'description', 'body'):
        if not form.get(k): yield f'{k} is missing'
    if odd := {*form}-{'name', 'description', 'title', 'labels', 'assignees', 'projects', 'type', 'body'}: yield f'{sorted(odd)[0]} is no key of a form'
    if not all(isinstance(l, str) for l in form.get('labels', [])): yield 'labels are not text'
    body = form.get('body') or []
    if body and all(o.get('type')=='markdown' for o in body): yield 'nothing is asked'
    ids = [o['id'] for o in body if 'id' in o]
    labels = [o.get('attributes', {}).get('label') for o in body if o.get('type')!='markdown']
    if len({*ids})<len(ids) or len({*labels})<len(labels): yield 'an id or a label twice'
    for o in body:
        if o.get('type') not in KINDS: yield f'{o.get("type")} is no type'; continue
        given, needed = o.get('attributes', {}), 'value' if o['type']=='markdown' else 'label'
        if not given.get(needed): yield f'a {o["type"]} without {needed}'
        if {*given}-KINDS[o['type']] or {*o}-{'type', 'id', 'attributes', 'validations'}: yield f'a key that a {o["type"]} has not'
        if not re.fullmatch(r'[\w-]+', o.get('id', 'x')): yield 'an id that is none'
        if {*o.get('validations', {})}-{'required'}: yield 'a validation that there is not'


@pytest.mark.parametrize('path', FORMS, ids=lambda p: p.stem)
def test_issue_forms_are_valid_and_ask_for_the_version(path):
    form = read(path)
    assert not [*form_problems(form)]
    asked = {o['id']: o for o in form['body'] if 'id' in o}
    code = re.search(r'`python -c "(.*?)"`', asked['version']['attributes']['description'])[1]
    said, failed = call(sys.executable, '-c', code, env={'PYTHONPATH': str(root)})
    assert not failed and said.strip()==cfg['version']
    files = re.findall(r'\.\./blob/HEAD/([\w/.]+)', path.read_text(encoding='utf-8'))
    assert all((root/f).is_file() for f in files)


def test_there_is_a_form_for_each_occasion():
    assert {p.stem for p in FORMS}=={'bug', 'misread', 'question'}
    assert {*read('.github/ISSUE_TEMPLATE/config.yml')} <= {'blank_issues_enabled', 'contact_links'}
    assert {'command', 'said'} <= {o.get('id') for o in read('.github/ISSUE_TEMPLATE/bug.yml')['body']}
    request = (root/'.github'/'pull_request_template.md').read_text(encoding='utf-8')
    assert 'make test' in request and request.count('- [ ]')>2


@pytest.mark.parametrize('change, said', [
    (dict(name=''), 'name is missing'), (dict(body=[]), 'body is missing'), (dict(about='x'), 'about'), (dict(labels=[1]), 'labels'),
    (dict(body=[dict(type='text', attributes=dict(label='a'))]), 'no type'), (dict(body=[dict(type='input', attributes=dict(description='a'))]), 'without label'),
    (dict(body=[dict(type='input', id='a', attributes=dict(label=l)) for l in 'ab']), 'twice'), (dict(body=[dict(type='markdown', attributes=dict(value='a'))]), 'nothing is asked')])
def test_an_invalid_form_is_found(change, said): assert any(said in p for p in form_problems(read(FORMS[0]) | change))


# --- hooks ----------------------------------------------------------------------------------------------------------------

def test_the_hooks_run_what_is_installed():
    hooks = [h for r in read('.pre-commit-config.yaml')['repos'] if r['repo']=='local' for h in r['hooks']]
    assert [h['id'] for h in hooks]==['nbdev_clean', 'nbdev_export']
    for h in hooks:
        assert h['language']=='system' and shutil.which(h['entry'].split()[0], path=Path(sys.executable).parent), h
        assert re.search(h['files'], 'nbs/00_core.ipynb') and not re.search(h['files'], 'tests/test_core.py')


# --- a release ------------------------------------------------------------------------------------------------------------

releasing = re.search(r'^## Releasing\n(.*?)^## ', (root/'CONTRIBUTING.md').read_text(encoding='utf-8'), re.M|re.S)[1]
blocks = [re.sub(r'^    ', '', b, flags=re.M) for b in re.findall(r'^    ```sh\n(.*?)^    ```', releasing, re.M|re.S)]


def block(word): return next(b for b in blocks if word in b)


def test_the_checklist_has_every_step_in_order():
    words = ['make test', 'nbdev_bump_version', 'CHANGELOG.md', '-m build', 'twine check', '-m venv', 'git tag', 'twine upload']
    at = [releasing.index(w) for w in words]
    assert at==sorted(at)
    makefile = (root/'Makefile').read_text(encoding='utf-8')
    assert all(re.search(f'^{t}:', makefile, re.M) for t in re.findall(r'make (\w+)', ' '.join(blocks)))
    for b in blocks: assert subprocess.run(['bash', '-n'], input=b, text=True).returncode==0, b
    assert all((root/f).is_file() for f in re.findall(r'tests/\w+\.py', releasing))


def test_the_version_is_raised_in_all_places_and_nothing_else(tmp_path):
    "The block of the checklist, as it stands, in a copy of the sources."
    for name in ('settings.ini', 'CITATION.cff', 'setup.py'): shutil.copy(root/name, tmp_path)
    for folder, files in (('fsic_nb', ['__init__.py', 'core.py', '_modidx.py']), ('nbs', ['00_core.ipynb'])):
        (tmp_path/folder).mkdir()
        for f in files: shutil.copy(root/folder/f, tmp_path/folder)
    env = dict(PATH=f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}', PYTHONDONTWRITEBYTECODE='1', GIT_CONFIG_GLOBAL=os.devnull, GIT_PAGER='cat')
    before = {p: p.read_text(encoding='utf-8').splitlines() for p in tmp_path.rglob('*') if p.is_file() and p.name!='_modidx.py'}   # of all modules
    out, failed = call('bash', '-ec', f'git init -q . && git add -A\n{block("nbdev_bump_version")}', cwd=tmp_path, env=env)
    assert not failed and all(f in out for f in ('settings.ini', '__init__.py', 'CITATION.cff')), out
    *head, last = cfg['version'].split('.')
    new = '.'.join([*head, str(int(last)+1)])
    changed = {p.name: [(a, b) for a, b in zip(lines, p.read_text(encoding='utf-8').splitlines(), strict=True) if a!=b] for p, lines in before.items()}
    assert {k: v for k, v in changed.items() if v}=={
        'settings.ini': [(f'version = {cfg["version"]}', f'version = {new}')], 'CITATION.cff': [(f'version: {cfg["version"]}', f'version: {new}')],
        '__init__.py': [(f'__version__ = "{cfg["version"]}"', f'__version__ = "{new}"')]}
    assert not [*tmp_path.rglob('*.old')]


def test_names_and_addresses_agree():
    "nbdev writes them out when it raises the version, so each stands in full."
    assert cfg['git_url'].endswith(f"/{cfg['user']}/{cfg['repo']}") and cfg['doc_baseurl']==f"/{cfg['repo']}"


def test_both_archives_pass_twine(wheel):
    from twine.commands.check import check
    archive = next(wheel.parent.glob('*.tar.gz'))
    assert not check([str(wheel), str(archive)], strict=True)
    with tarfile.open(archive) as t: names = {n.partition('/')[2] for n in t.getnames()}
    assert not [n for n in names if n.startswith(('nbs/', '.github/', '_site/', 'runs/'))]


def test_no_link_of_the_description_is_lost(wheel):
    "On the index there is no repository around it: what lies beside README.md is named in full; its code is as it was."
    fences, address = re.compile(r'^```.*?^```$', re.M|re.S), re.compile(r'(?:\]\(|\b(?:src|srcset|href)=")([^)"\s]+)')
    readme, text = (root/'README.md').read_text(encoding='utf-8'), metadata_of(wheel).get_payload(decode=True).decode()
    assert fences.findall(text)==fences.findall(readme)
    old, new = (address.findall(fences.sub('', t)) for t in (readme, text))
    at = f"{cfg['git_url']}/{{}}/{cfg['branch']}/"
    assert len(old)>20 and any(a.startswith('figures/') for a in old)
    for a, b in zip(old, new, strict=True): assert b==(a if re.match(r'\w+:|#', a) else at.format('raw' if a.endswith('.png') else 'blob')+a)


@pytest.mark.skipif(not os.environ.get('FSIC_SLOW'), reason='installs 5.5 GB, which takes minutes: FSIC_SLOW=1 runs it')
def test_the_wheel_works_in_an_empty_environment(wheel, tmp_path):
    "With all of its requirements and nothing borrowed; what is borrowed by the cheap one is tested in test_package."
    python = tmp_path/'empty'/('Scripts' if os.name=='nt' else 'bin')/'python'
    for command in ((sys.executable, '-m', 'venv', tmp_path/'empty'), (python, '-m', 'pip', 'install', wheel), (python, '-m', 'pip', 'check'),
                    (python.parent/'fsic_demo', '--help')):
        out, failed = call(*command, cwd=tmp_path)
        assert not failed, out
    assert '--out' in out
    out, failed = call(python, '-c', f'{USE}\nprint(fsic_nb.__version__, fsic_nb.__file__)', cwd=tmp_path)
    assert not failed and out.split()[-2]==cfg['version'] and Path(out.split()[-1]).is_relative_to(tmp_path), out
    shutil.rmtree(tmp_path/'empty')
