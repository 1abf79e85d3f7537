"The tools of the repository: what they refuse, and with which sentence."
import json, os, shutil, subprocess, sys
from pathlib import Path

import pytest
from execnb.nbio import mk_cell, new_nb, write_nb

import notebooks, setup_env, tuning

root = Path(__file__).resolve().parents[1]
kernel = dict(kernelspec=dict(display_name='python3', language='python', name='python3'))


@pytest.fixture
def notebook(tmp_path):
    "Write a notebook of these cells and give its path."
    def write(*sources, name='90_try.ipynb'):
        cells = [mk_cell(s[3:], 'markdown') if s.startswith('md ') else mk_cell(s) for s in sources]
        write_nb(new_nb(cells, meta=kernel), tmp_path/name)
        return tmp_path/name
    return write


def run(path, *args): # in a process of its own, as `make notebooks` does
    return subprocess.run([sys.executable, root/'tools'/'notebooks.py', 'run', *args, path], capture_output=True, text=True)


def test_a_second_run_changes_nothing(notebook):
    path = notebook('md # T', "import warnings, matplotlib.pyplot as plt", "plt.plot([1, 2]); warnings.warn('not a result'); print('a result')",
                    '#| eval: false\n1/0')
    assert run(path).returncode==0
    once = path.read_text(encoding='utf-8')
    assert 'image/png' in once and 'a result' in once and 'stderr' not in once
    assert list(notebooks.notebook_problems(path))==[]
    assert run(path).returncode==0
    assert path.read_text(encoding='utf-8')==once


def test_a_failing_cell_is_named_and_nothing_is_saved(notebook):
    path = notebook('x = 1', "raise ValueError('no such thing')")
    before = path.read_text(encoding='utf-8')
    p = run(path)
    assert p.returncode==1
    assert "90_try.ipynb, cell 1 (raise ValueError('no such thing')): ValueError: no such thing" in p.stderr
    assert path.read_text(encoding='utf-8')==before


def test_a_cell_that_hangs_is_stopped(notebook):
    p = run(notebook('import time; time.sleep(30)'), '--timeout', '1')
    assert p.returncode==1 and 'TimeoutError' in p.stderr


def saved(text, kind='stream'):
    "A saved output that says `text`."
    return dict(output_type='stream', name='stdout', text=[text]) if kind=='stream' else dict(output_type='display_data', metadata={}, data={kind: text})


@pytest.mark.parametrize('output, said', [
    (saved('/home/ada/fsic'), 'a path of one machine'), (saved(f'{root}/nbs'), 'a path of one machine'),
    (saved('<object at 0x7f3a90c1d2b0>'), 'a memory address'), (saved('at 12:30:44'), 'a clock'),
    (saved('x: 50%|##   | 3/6'), 'a progress bar'), (saved('Traceback (most recent call last):'), 'a traceback'),
    (dict(output_type='stream', name='stderr', text=['w']), 'a saved warning'),
    (saved('A'*90_000, 'image/png'), 'a figure of 67 kB'), (saved({}, 'application/vnd.jupyter.widget-view+json'), 'a saved widget')])
def test_untidy_outputs(output, said): assert any(said in p for p in notebooks.output_problems(output))


@pytest.mark.parametrize('text', ['0.7 +- 0.1', 'shape (2, 49, 1280) 3:1', '16 hexadecimal digits: 4f0e19a7d2', 'see a/home/b.txt', '50 % kept'])
def test_tidy_outputs(text): assert list(notebooks.output_problems(saved(text)))==[]


def test_long_cells_and_exports_without_outputs(notebook):
    path = notebook('#| default_exp x', '#| export\n' + 'a = 1\n'*41)
    notebooks.save(path, notebooks.cleaned(notebooks.read_nb(path)))
    problems = list(notebooks.notebook_problems(path))
    assert len(problems)==2 and 'cell 1: 42 lines' in problems[0] and 'no saved outputs' in problems[1]


def test_unclean_notebooks(notebook):
    path = notebook('1')
    path.write_text(path.read_text().replace('"execution_count": 0', '"execution_count": 7'))
    assert any('not clean' in p for p in notebooks.notebook_problems(path))


def test_readme(notebook):
    path = notebook('md # T\n![x](../figures/x.png) [core](00_core.ipynb)', '#| hide\nimport os', '#| echo: false\nprint(3)', 'print(2)\n4', name='index.ipynb')
    run(path)
    assert notebooks.as_readme(path)=='# T\n![x](figures/x.png) [core](nbs/00_core.ipynb)\n\n```\n3\n```\n\n```python\nprint(2)\n4\n```\n\n```\n2\n```\n\n```\n4\n```\n'


# --- setup_env -----------------------------------------------------------------------------------------------------------

def test_python_too_old():
    with pytest.raises(setup_env.Trouble, match=r'needs Python 3\.11 or newer and this is 3\.8\.1'): setup_env.check_python((3, 8, 1))
    setup_env.check_python()


def test_disk_too_small(tmp_path):
    with pytest.raises(setup_env.Trouble, match='The disk is too full'): setup_env.check_space(tmp_path, 1e9)


@pytest.mark.parametrize('text, said', [
    ('ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device', 'The disk is full'),
    ("WARNING: Retrying ... NewConnectionError('...: Failed to establish a new connection')\n"
     'ERROR: Could not find a version that satisfies the requirement torch', 'The package index cannot be reached'),
    ('ERROR: Could not find a version that satisfies the requirement setuptools>=77 (from versions: none)\n'
     'ERROR: No matching distribution found for setuptools>=77', 'cannot be reached or does not have setuptools>=77'),
    ('ERROR: Cannot install a and b because these package versions have conflicting dependencies.', 'contradict each other'),
    ('ERROR: No matching distribution found for torch==9', 'No matching distribution found for torch==9')])
def test_pip_in_one_sentence(text, said):
    assert said in setup_env.reason(text) and '\n' not in setup_env.reason(text)


@pytest.fixture
def clone(tmp_path):
    "What an installation needs of the repository, elsewhere."
    for name in ('settings.ini', 'setup.py', 'pyproject.toml', 'README.md', 'Makefile'):
        shutil.copy(root/name, tmp_path)
    for name in ('tools', 'fsic_nb'): shutil.copytree(root/name, tmp_path/name)
    return tmp_path


def install(clone, extra, *folder, **env):
    p = subprocess.run([sys.executable, clone/'tools'/'setup_env.py', extra, *folder],
                       capture_output=True, text=True, env={**os.environ, **env})
    return p.returncode, p.stdout, p.stderr


def move_to(clone, monkeypatch):
    "Let setup_env, as imported here, be the one of a clone."
    values = dict(root=str(clone), venv=str(clone/'.venv'), made=f'a .venv made for {clone}')
    for name, value in values.items(): monkeypatch.setattr(setup_env, name, value)


def test_unreachable_index_is_one_sentence(clone):
    if shutil.disk_usage(clone).free<setup_env.needs_gb*1e9: pytest.skip('too little disk space to get as far as the index')
    code, out, err = install(clone, 'demo', PIP_INDEX_URL='http://127.0.0.1:9/simple', PIP_RETRIES='0', PIP_CONFIG_FILE=os.devnull,
                             PIP_EXTRA_INDEX_URL='', PIP_FIND_LINKS='')
    assert code==1 and len(err.splitlines())==1 and 'The package index cannot be reached' in err


def test_what_is_installed_is_not_installed_again(clone, monkeypatch):
    subprocess.run([sys.executable, '-m', 'venv', '--without-pip', clone/'.venv'], check=True)
    move_to(clone, monkeypatch)
    Path(setup_env.stamp('dev')).write_text(setup_env.key('dev'))
    for extra in ('dev', 'demo'): assert install(clone, extra)==(0, '', '')   # dev contains demo
    with (clone/'settings.ini').open('a') as f: f.write('x = 1\n')
    assert not setup_env.installed('dev')                                       # settings changed: once more


# A module venv that is quick: `python -m venv FOLDER` makes a folder with a Python that has no pip.
quick_venv = """
import os, sys
folder = sys.argv[-1]
os.makedirs(os.path.join(folder, 'bin'), exist_ok=True)
open(os.path.join(folder, 'pyvenv.cfg'), 'w').close()
if os.environ.get('VENV_FAILS'): sys.exit(os.environ['VENV_FAILS'])
python = os.path.join(folder, 'bin', 'python')
with open(python, 'w') as f: f.write('#!/bin/sh\\necho ERROR: no pip here; exit 1')
os.chmod(python, 0o755)
"""
made_it = 'pip failed: no pip here'   # how an installation into such an environment ends


@pytest.fixture
def quick(clone, monkeypatch):
    "A clone whose environments are made at once, and where nothing can be installed."
    if os.name=='nt': pytest.skip('the Python of the quick environment is a shell script')
    for name in ('quick', 'nbs', 'tests'): (clone/name).mkdir()
    (clone/'quick'/'venv.py').write_text(quick_venv)
    monkeypatch.setenv('PYTHONPATH', str(clone/'quick'))
    # its disk is large enough
    path = clone/'tools'/'setup_env.py'
    text = path.read_text().replace('needs_gb = 8', 'needs_gb = 0')
    path.write_text(text.replace('1 if started', '0 if started'))
    return clone


def environment(folder, mark=None):
    "An environment with something of the user's in it, marked or not."
    (folder/'bin').mkdir(parents=True)
    for name in ('pyvenv.cfg', 'bin/python', 'mine.txt'): (folder/name).write_text('mine')
    if mark is not None: (folder/'.made').write_text(mark)
    return folder


def files(folder):
    return {str(p.relative_to(folder)): p.read_text() for p in folder.rglob('*') if p.is_file()}


def refused(clone, *folder, said):
    "Assert that an installation ends in one sentence that says so and gives a way out."
    code, out, err = install(clone, 'demo', *folder)
    assert code==1 and out=='' and len(err.splitlines())==1
    assert said in err and 'is left as it is' in err and 'VENV=/a/new/folder' in err


def marked(folder): return (folder/'.made').read_text()


def test_an_environment_is_made_and_marked(quick):
    assert made_it in install(quick, 'demo')[2]
    assert marked(quick/'.venv')==f'a .venv made for {quick}'


def test_a_foreign_environment_is_left_alone(quick):
    before = files(environment(quick/'.venv'))
    refused(quick, said='was not made by this repository')
    assert files(quick/'.venv')==before


@pytest.mark.parametrize('mark', ['', 'made by hand'])
def test_a_foreign_mark_is_no_mark(quick, mark):
    before = files(environment(quick/'.venv', mark))
    refused(quick, said='was not made by this repository')
    assert files(quick/'.venv')==before


def test_other_folders_and_files_are_left_alone(quick):
    (quick/'.venv').mkdir()
    (quick/'.venv'/'letter.txt').write_text('mine')
    refused(quick, said='is no virtual environment')
    assert files(quick/'.venv')=={'letter.txt': 'mine'}
    shutil.rmtree(quick/'.venv')
    (quick/'.venv').write_text('mine')
    refused(quick, said='is no virtual environment')
    assert (quick/'.venv').read_text()=='mine'


@pytest.mark.parametrize('mark', [None, 'a .venv made for /gone'])
@pytest.mark.parametrize('named', ['.venv', '.venv/', '.venv//.'])
def test_behind_a_link_nothing_is_emptied(quick, mark, named):
    before = files(environment(quick/'mine', mark))
    (quick/'.venv').symlink_to('mine')
    refused(quick, named, said='.venv is a symbolic link to mine')
    assert files(quick/'mine')==before


def test_a_link_to_nothing_is_not_filled(quick):
    (quick/'.venv').symlink_to('nowhere')
    refused(quick, said='is a symbolic link to nowhere')
    assert not (quick/'nowhere').exists()


def test_a_link_to_the_environment_of_this_clone_is_used(quick):
    install(quick, 'demo')
    (quick/'.venv').rename(quick/'large_disk')
    (quick/'.venv').symlink_to('large_disk')
    (quick/'large_disk'/'mine.txt').write_text('mine')
    assert made_it in install(quick, 'demo')[2] and (quick/'large_disk'/'mine.txt').exists()


def test_the_environment_of_a_moved_clone_is_made_again(quick):
    environment(quick/'.venv', 'a .venv made for /old/place')
    (quick/'outside').mkdir()
    (quick/'outside'/'mine.txt').write_text('mine')
    (quick/'.venv'/'link').symlink_to('../outside')
    code, out, err = install(quick, 'demo')
    assert f'{quick}/.venv is made again: it was made for /old/place.' in out and made_it in err
    assert marked(quick/'.venv')==f'a .venv made for {quick}'
    assert not (quick/'.venv'/'mine.txt').exists()
    assert files(quick/'outside')=={'mine.txt': 'mine'}   # of a link in it only the link goes


def test_the_environment_of_another_clone_is_left_alone(quick, tmp_path_factory):
    other, place = tmp_path_factory.mktemp('other'), tmp_path_factory.mktemp('place')
    before = files(environment(place/'env', f'a .venv made for {other}'))
    refused(quick, str(place/'env'), said=f'belongs to the clone in {other}')
    said = install(quick, 'clean', str(place/'env'))[1]
    assert f'Kept: {place}/env, because it belongs to' in said
    assert files(place/'env')==before
    other.rmdir()   # a clone that is gone needs it no longer
    assert made_it in install(quick, 'demo', str(place/'env'))[2]
    assert marked(place/'env')==f'a .venv made for {quick}'


@pytest.mark.parametrize('words, said', [
    ('Error: no luck today', 'Error: no luck today'),
    ('No module named venv', 'install its venv package'),
    ('ensurepip is not available', 'install its venv package'),
    ('[Errno 28] No space left', 'The disk is full')])
def test_a_failed_creation_is_one_sentence_and_no_dead_end(quick, words, said):
    code, out, err = install(quick, 'demo', VENV_FAILS=words)
    assert code==1 and len(err.splitlines())==1 and said in err
    log = quick/'.venv'/'install.log'
    assert log.read_text().strip()==words
    assert ('details' in err)==('no luck' in words) and (str(log) in err or 'details' not in err)
    code, out, err = install(quick, 'demo')   # what is left of it is known as ours
    assert 'is made again: it is not complete' in out and made_it in err


def test_a_place_that_cannot_be_written_is_one_sentence(quick):
    code, out, err = install(quick, 'demo', 'setup.py/env')
    assert code==1 and len(err.splitlines())==1
    assert 'setup.py/env cannot be written' in err and 'VENV=/a/new/folder' in err


def test_an_environment_is_not_made_again_by_its_own_python(quick, monkeypatch):
    environment(quick/'.venv', 'a .venv made for /old/place')
    move_to(quick, monkeypatch)
    monkeypatch.setattr(sys, 'prefix', str(quick/'.venv'))
    with pytest.raises(setup_env.Trouble, match='another one with PYTHON='): setup_env.make_venv()
    assert (quick/'.venv'/'mine.txt').exists()


def test_the_key_depends_on_settings_and_setup(clone, monkeypatch):
    monkeypatch.setattr(setup_env, 'root', str(clone))
    keys = [setup_env.key('dev')]
    for name in ('settings.ini', 'setup.py'):
        with (clone/name).open('a') as f: f.write('\n')
        keys.append(setup_env.key('dev'))
    assert len(set(keys))==3 and setup_env.key('demo') not in keys


def make(clone, *args):
    "make in a clone, as if no make had called us; its exit code, its output."
    if not shutil.which('make'): pytest.skip('no make here')
    ours = ('MAKEFLAGS', 'MFLAGS', 'MAKELEVEL', 'VENV')
    env = {k: v for k, v in os.environ.items() if k not in ours}
    p = subprocess.run(['make', f'PYTHON={sys.executable}', *args], cwd=clone,
                       capture_output=True, text=True, env=env)
    return p.returncode, p.stdout + p.stderr


@pytest.mark.parametrize('target', ['demo', 'test', 'lab', 'export', 'notebooks', 'docs', 'clean'])
def test_every_target_knows_another_place(quick, target):
    code, said = make(quick, '-n', target, 'VENV=/some where/else')
    assert code==0 and 'tools/setup_env.py' in said
    assert '.venv' not in said.replace(sys.executable, 'python')
    ran = [line for line in said.splitlines() if '/some where/else' in line]
    assert len(ran)>=(1 if target=='clean' else 2)


def test_a_place_with_no_name_and_one_at_home(quick):
    assert '".venv/bin/python"' in make(quick, '-n', 'test', 'VENV=')[1]
    said = make(quick, '-n', 'test', 'VENV=~/x')[1]   # not every shell expands it
    assert f'"{os.environ["HOME"]}/x/bin/python"' in said


def test_an_environment_elsewhere(quick, tmp_path_factory):
    place = tmp_path_factory.mktemp('place')/'env'
    environment(quick/'.venv')   # no longer in the way
    assert made_it in make(quick, 'demo', f'VENV={place}')[1]
    assert marked(place)==f'a .venv made for {quick}'
    demo = place/'bin'/'fsic_demo'
    demo.write_text('#!/bin/sh\necho this demo ran')
    demo.chmod(0o755)
    (place/'bin'/'python').write_text('#!/bin/sh\n')   # now pip succeeds
    code, said = make(quick, 'demo', f'VENV={place}')
    assert code==0 and 'Installed.' in said and 'this demo ran' in said
    assert 'Installing' not in make(quick, 'demo', f'VENV={place}')[1]
    assert make(quick, 'clean', f'VENV={place}')[0]==0
    assert not place.exists() and 'mine.txt' in files(quick/'.venv')


def test_a_foreign_environment_elsewhere_is_left_alone(quick, tmp_path_factory):
    place = environment(tmp_path_factory.mktemp('place')/'env')
    before = files(place)
    for target in ('demo', 'test', 'lab', 'export', 'docs'):
        code, said = make(quick, target, f'VENV={place}')
        assert code and f'{place} is a virtual environment that was not made by' in said
    said = make(quick, 'clean', f'VENV={place}')[1]
    assert f'Kept: {place}, because it is a virtual environment' in said
    assert files(place)==before


def test_an_empty_folder_may_be_filled_but_not_removed(quick, tmp_path_factory):
    place = tmp_path_factory.mktemp('place')
    assert install(quick, 'clean', str(place))==(0, '', '') and place.exists()
    assert made_it in install(quick, 'demo', str(place))[2]
    assert marked(place)==f'a .venv made for {quick}'


@pytest.mark.parametrize('kind', ['link', 'foreign', 'folder'])
def test_clean_keeps_what_was_not_made_here(quick, kind):
    (quick/'tests'/'__pycache__').mkdir()
    (quick/'build').mkdir()
    mine = environment(quick/('mine' if kind=='link' else '.venv'))
    (mine/'__pycache__').mkdir()
    (mine/'__pycache__'/'x.pyc').write_text('mine')
    if kind=='link': (quick/'.venv').symlink_to('mine')
    if kind=='folder': (mine/'pyvenv.cfg').unlink()
    before = files(mine)
    code, said = make(quick, 'clean')
    assert code==0 and f'Kept: {quick}/.venv, because it is ' in said
    assert files(mine)==before and (quick/'.venv').is_symlink()==(kind=='link')
    assert not (quick/'build').exists() and not (quick/'tests'/'__pycache__').exists()


@pytest.mark.parametrize('mark', ['here', 'unfinished', '/old/place'])
def test_clean_removes_what_was_made_here(quick, mark):
    owner = dict(here=f'{quick}', unfinished=f'{quick}\nunfinished').get(mark, mark)
    environment(quick/'.venv', f'a .venv made for {owner}')
    code, said = make(quick, 'clean')
    assert code==0 and not (quick/'.venv').exists()
    assert make(quick, 'clean')[0]==0   # nothing there: nothing to do


def test_a_cut_training_is_reported_as_far_as_it_was_saved(tmp_path):
    "The log may be ahead of the weights; a validation is shown at the number of steps made before it."
    lines = [dict(step=-1, val=.4), *(dict(step=i, loss=float(i)) for i in range(70)), dict(step=69, val=.5), *(dict(step=i, loss=9.) for i in range(70, 80))]
    (tmp_path/'log.jsonl').write_text(''.join(json.dumps(l)+'\n' for l in lines))
    (tmp_path/'last').mkdir()
    (tmp_path/'last'/'state.json').write_text('{"step": 70, "best": 0.5}')
    assert tuning.read_log(tmp_path)==dict(steps=70, loss_block=50, loss=[dict(step=50, loss=24.5), dict(step=70, loss=59.5)], rows=[dict(step=0, val=.4), dict(step=70, val=.5)])
