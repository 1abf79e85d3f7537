"The wheel: what is in it, and that it works in a bare environment with today's fastcore."
import email, os, shutil, subprocess, sys, sysconfig, tarfile, zipfile
from configparser import ConfigParser
from pathlib import Path

import pytest

import setup_env

root = Path(__file__).resolve().parents[1]
modules = sorted(p.name for p in (root/'fsic_nb').glob('*.py'))
parser = ConfigParser(delimiters=['='])
parser.read(root/'settings.ini', encoding='utf-8')
cfg = parser['DEFAULT']


def call(*args, **kwargs):
    "Run a command; its output as text, its exit code."
    p = subprocess.run([str(a) for a in args], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **kwargs)
    return p.stdout, p.returncode


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    "The wheel, built in a copy, so that nothing is left in the repository and nothing stale gets in."
    copy = tmp_path_factory.mktemp('source')
    for p in root.iterdir():
        if p.is_file() and p.suffix!='.log': shutil.copy(p, copy)
    for name in ('fsic_nb', 'nbs', 'tests', 'tools'): shutil.copytree(root/name, copy/name, ignore=shutil.ignore_patterns('__pycache__'))
    (copy/'data').mkdir()
    (copy/'data'/'big.jpg').write_text('not for the wheel')
    out, code = call(sys.executable, '-m', 'build', '--sdist', '--wheel', '--no-isolation', '--outdir', copy/'dist', copy)
    assert code==0, out
    return next((copy/'dist').glob('*.whl'))


@pytest.fixture(scope='module')
def metadata(wheel):
    with zipfile.ZipFile(wheel) as z:
        return email.message_from_bytes(z.read(next(n for n in z.namelist() if n.endswith('.dist-info/METADATA'))))


def test_the_wheel_holds_the_library_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    info = f"fsic_nb-{cfg['version']}.dist-info"
    assert {f'fsic_nb/{m}' for m in modules} <= set(names)
    assert {n.split('/')[0] for n in names}=={'fsic_nb', info}
    assert not [n for n in names if n.endswith(('.ipynb', '.jpg', '.png'))]
    assert any(n.startswith(info) and n.endswith('LICENSE') for n in names)


def test_the_source_archive_can_be_built_from(wheel):
    "setup.py reads settings.ini and README.md, so they travel with it."
    with tarfile.open(next(wheel.parent.glob('*.tar.gz'))) as t: names = {n.partition('/')[2] for n in t.getnames()}
    assert {'settings.ini', 'setup.py', 'pyproject.toml', 'README.md', 'LICENSE', 'fsic_nb/core.py'} <= names


def test_the_wheel_has_the_console_script(wheel):
    with zipfile.ZipFile(wheel) as z: text = z.read(f"fsic_nb-{cfg['version']}.dist-info/entry_points.txt").decode()
    assert 'fsic_demo = fsic_nb.cli:fsic_demo' in text


def test_the_metadata_says_what_settings_say(metadata):
    assert metadata['Name']=='fsic_nb' and metadata['Version']==cfg['version']
    assert 'Apache-2.0' in (metadata['License-Expression'] or metadata['License'])
    assert metadata['Requires-Python']==f">={cfg['min_python']}"
    required = metadata.get_all('Requires-Dist')
    bare = {r.split(';')[0].strip().replace(' ', '') for r in required if 'extra ==' not in r}
    assert {b.translate(str.maketrans('', '', '<>=,.0123456789')) for b in bare}==\
        {r.translate(str.maketrans('', '', '<>=,.0123456789')) for r in cfg['requirements'].split()}
    assert {'demo', 'dev'} <= set(metadata.get_all('Provides-Extra'))
    for r in cfg['demo_requirements'].split():   # dev contains demo, so either extra can follow the other
        name = r.split('=')[0].split('>')[0]
        assert {e for e in ('demo', 'dev') if any(q.startswith(name) and f'extra == "{e}"' in q.replace("'", '"') for q in required)}=={'demo', 'dev'}


@pytest.fixture(scope='module')
def bare(wheel, tmp_path_factory):
    "The Python of a new environment: this wheel and current fastcore; torch and the like are borrowed from the running one."
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


def test_every_module_imports_with_current_fastcore(bare, tmp_path):
    names = [f'fsic_nb.{m[:-3]}' for m in modules if m!='__init__.py']
    code = f'import importlib, fastcore, fsic_nb\nfor m in {names}: importlib.import_module(m)\nprint(fastcore.__version__, fsic_nb.__file__)'
    out, failed = call(bare, '-W', 'ignore', '-c', code, cwd=tmp_path)
    assert not failed, out
    version, where = out.split()[-2:]
    assert int(version.split('.')[0])>=2
    assert Path(where).is_relative_to(bare.parents[1]), 'imported from the repository instead of the wheel'


def test_the_console_script_answers(bare, tmp_path):
    out, failed = call(bare.parent/'fsic_demo', '--help', cwd=tmp_path)
    assert not failed and '--quick' in out, out


def test_placeholder_urls_stand_in_one_file():
    "No address is invented outside settings.ini; _modidx.py is generated from it."
    host = cfg['doc_host'].split('//')[1]
    out, failed = call('git', 'ls-files', '--cached', '--others', '--exclude-standard', cwd=root)
    if failed: pytest.skip('not a git clone')
    files = [root/f for f in out.splitlines() if f not in ('settings.ini', 'fsic_nb/_modidx.py') and (root/f).is_file()]
    assert [f.name for f in files if host.encode() in f.read_bytes()]==[]
