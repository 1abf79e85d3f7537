"The tools of the repository: what they refuse, and with which sentence."
import os, shutil, subprocess, sys
from pathlib import Path

import pytest
from execnb.nbio import mk_cell, new_nb, write_nb

import notebooks, setup_env

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
    for name in ('settings.ini', 'setup.py', 'pyproject.toml', 'README.md'): shutil.copy(root/name, tmp_path)
    for name in ('tools', 'fsic_nb'): shutil.copytree(root/name, tmp_path/name)
    return tmp_path


def install(clone, extra, **env):
    p = subprocess.run([sys.executable, clone/'tools'/'setup_env.py', extra], capture_output=True, text=True, env={**os.environ, **env})
    return p.returncode, p.stdout, p.stderr


def test_unreachable_index_is_one_sentence(clone):
    if shutil.disk_usage(clone).free<setup_env.needs_gb*1e9: pytest.skip('too little disk space to get as far as the index')
    code, out, err = install(clone, 'demo', PIP_INDEX_URL='http://127.0.0.1:9/simple', PIP_RETRIES='0', PIP_CONFIG_FILE=os.devnull,
                             PIP_EXTRA_INDEX_URL='', PIP_FIND_LINKS='')
    assert code==1 and len(err.splitlines())==1 and 'The package index cannot be reached' in err


def test_what_is_installed_is_not_installed_again(clone, monkeypatch):
    code = subprocess.run([sys.executable, '-m', 'venv', '--without-pip', clone/'.venv']).returncode
    assert code==0
    for name, value in dict(root=str(clone), venv=str(clone/'.venv'), made=f'a .venv made for {clone}').items(): monkeypatch.setattr(setup_env, name, value)
    Path(setup_env.stamp('dev')).write_text(setup_env.key('dev'))
    for extra in ('dev', 'demo'): assert install(clone, extra)==(0, '', '')   # dev contains demo
    with (clone/'settings.ini').open('a') as f: f.write('x = 1\n')
    assert not setup_env.installed('dev')                                       # settings changed: once more
