"What every test shares: a quiet environment, the installed wheel, real photos and a browser where there are any."
import os, shutil, subprocess, sys, sysconfig
from pathlib import Path

# before anything imports numpy, torch or matplotlib
os.environ.update(FSIC_PROGRESS='0', MPLBACKEND='Agg')
for threads in ('OMP_NUM_THREADS', 'MKL_NUM_THREADS'): os.environ.setdefault(threads, '1')

import pytest
from jaxtyping import install_import_hook

root = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(root/'tools'))
# as it was before any test named another one
named_home = Path(h).absolute() if (h := os.environ.get('FSIC_HOME', '').strip()) else None

# Annotations are part of what is tested: the library runs with every one of them checked, shapes of tensors included.
# As for every type checker a whole number is a float, too. Only the commands are left out, whose annotations say how an
# option is read. FSIC_TYPES=0 switches it off, to debug.
if os.environ.get('FSIC_TYPES')!='0':
    modules = [f'fsic_nb.{p.stem}' for p in sorted((root/'fsic_nb').glob('[!_]*.py')) if p.stem not in ('cli', 'tag')]
    install_import_hook(modules, 'beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))')


def call(*args, env=None, **kwargs):
    "Run a command that does not see the repository; its output as text, its exit code."
    # what `make test` and a shell export would lead commands and nested makes back here
    outside = {k: v for k, v in os.environ.items() if k not in ('PYTHONPATH', 'MAKEFLAGS', 'MAKELEVEL', 'MFLAGS')}
    p = subprocess.run([str(a) for a in args], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                       env={**outside, **(env or {})}, **kwargs)
    return p.stdout, p.returncode


def copy_of_sources(folder:Path)->Path:
    "The repository's sources in `folder`: builds leave nothing here, and nothing stale gets into them."
    for p in root.iterdir():
        if p.is_file() and p.suffix!='.log': shutil.copy(p, folder)
    for name in ('fsic_nb', 'nbs', 'tests', 'tools', 'data/configs', 'data/splits', 'data/page', 'data/models'):
        shutil.copytree(root/name, folder/name, ignore=shutil.ignore_patterns('__pycache__'))
    (folder/'data'/'configs'/'big.jpg').write_text('not for the wheel')
    return folder


@pytest.fixture(scope='session')
def wheel(tmp_path_factory)->Path:
    "The wheel that is built from the source archive, which lies beside it."
    copy = copy_of_sources(tmp_path_factory.mktemp('source'))
    out, code = call(sys.executable, '-m', 'build', '--no-isolation', '--outdir', copy/'dist', copy)
    assert code==0, out
    return next((copy/'dist').glob('*.whl'))


@pytest.fixture(scope='session')
def bare(wheel, tmp_path_factory)->Path:
    "The Python of a new environment: this wheel and current fastcore; torch and the like are borrowed from the running one."
    import setup_env
    folder = tmp_path_factory.mktemp('bare')
    subprocess.run([sys.executable, '-m', 'venv', folder], check=True)
    python = folder/('Scripts' if os.name=='nt' else 'bin')/'python'
    for what in (['fastcore>=2'], [wheel]):
        out, code = call(python, '-m', 'pip', 'install', '--no-deps', *what)
        if code and 'index cannot be reached' in setup_env.reason(out): pytest.skip('the package index cannot be reached')
        assert code==0, out
    site, _ = call(python, '-c', "import sysconfig; print(sysconfig.get_path('purelib'))")
    # a .pth line is appended to sys.path: what the bare environment has itself comes first
    Path(site.strip(), 'borrowed.pth').write_text(sysconfig.get_path('purelib'))
    return python


@pytest.fixture(scope='session')
def shared_home(tmp_path_factory)->Path:
    """A cache folder for all workers: scenes, features and runs are made by whoever needs them first.

    Where FSIC_HOME is set, as in CI, it is that folder: the notebooks' tests train and keep the same things there."""
    if named_home: return named_home
    base = tmp_path_factory.getbasetemp()
    return (base.parent if 'PYTEST_XDIST_WORKER' in os.environ else base)/'home'


@pytest.fixture(scope='session')
def photos()->Path:
    "The folder with real photos (VOC and COCO trees), outside the repository."
    folder = Path(os.environ.get('FSIC_SHARED', root.parent/'shared'/'mlfsic'))
    if not (folder/'voc').is_dir(): pytest.skip(f'no real photos: {folder}/voc is absent; name their folder in FSIC_SHARED')
    return folder


@pytest.fixture(scope='session')
def browser():
    "A headless Chromium, where there is one."
    from playwright.sync_api import sync_playwright
    import lab
    if not lab.chromium(): pytest.skip('no chromium: nothing is looked at in a browser (Debian: apt install chromium)')
    with sync_playwright() as pw:
        b = pw.chromium.launch(executable_path=lab.chromium(), args=['--no-sandbox'])
        yield b
        b.close()
