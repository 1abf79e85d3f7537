"The package: what is in the wheel, what its metadata and its face say, that it works in a bare environment with today's fastcore."
import email, re, sys, tarfile, zipfile
from configparser import ConfigParser
from pathlib import Path

import pytest

from conftest import call, copy_of_sources

root = Path(__file__).resolve().parents[1]
modules = sorted(p.name for p in (root/'fsic_nb').glob('*.py'))
shipped = sorted(p.relative_to(root) for p in [*root.glob('data/configs/*.toml'), *root.glob('data/splits/*.json'), *root.glob('data/page/page.*'),
                 *root.glob('data/models/*.safetensors')])
parser = ConfigParser(delimiters=['='])
parser.read(root/'settings.ini', encoding='utf-8')
cfg = parser['DEFAULT']


def metadata_of(wheel):
    with zipfile.ZipFile(wheel) as z:
        return email.message_from_bytes(z.read(next(n for n in z.namelist() if n.endswith('.dist-info/METADATA'))))


@pytest.fixture(scope='module')
def metadata(wheel): return metadata_of(wheel)


# --- what is in it ----------------------------------------------------------------------------------------------------

def test_the_wheel_holds_the_library_its_data_and_nothing_else(wheel):
    info = f"fsic_nb-{cfg['version']}.dist-info"
    with zipfile.ZipFile(wheel) as z: names = z.namelist()
    ours = {n for n in names if not n.startswith(info)}
    assert ours=={f'fsic_nb/{m}' for m in (*modules, 'py.typed')} | {f'fsic_nb/{p.as_posix()}' for p in shipped}
    assert any(n.startswith(info) and n.endswith('LICENSE') for n in names)


def test_the_wheel_carries_configs_and_splits_as_they_are(wheel):
    assert {p.parts[1] for p in shipped}=={'configs', 'splits', 'page', 'models'}
    with zipfile.ZipFile(wheel) as z:
        for p in shipped: assert z.read(f'fsic_nb/{p.as_posix()}')==(root/p).read_bytes()


def test_the_source_archive_can_be_built_from(wheel):
    "setup.py reads settings.ini and README.md, so they travel with it, and so do the data."
    with tarfile.open(next(wheel.parent.glob('*.tar.gz'))) as t: names = {n.partition('/')[2] for n in t.getnames()}
    assert {'settings.ini', 'setup.py', 'pyproject.toml', 'README.md', 'LICENSE', 'fsic_nb/core.py', 'fsic_nb/py.typed'} <= names
    assert {p.as_posix() for p in shipped} <= names


def test_a_clone_and_the_source_archive_give_the_same_wheel(wheel, tmp_path):
    "The `wheel` fixture is built from the archive, `pip install .` builds from the clone."
    copy = copy_of_sources(tmp_path)
    out, failed = call(sys.executable, '-m', 'build', '--wheel', '--no-isolation', '--outdir', copy/'dist', copy)
    assert not failed, out
    def content(path):
        with zipfile.ZipFile(path) as z: return {n: z.read(n) for n in z.namelist()}
    assert content(copy/'dist'/wheel.name)==content(wheel)


# --- what its metadata say --------------------------------------------------------------------------------------------

def test_the_wheel_has_the_console_scripts(wheel):
    with zipfile.ZipFile(wheel) as z: text = z.read(f"fsic_nb-{cfg['version']}.dist-info/entry_points.txt").decode()
    assert {c.replace('=', ' = ') for c in cfg['console_scripts'].split()} <= set(text.splitlines())


def test_the_metadata_says_what_settings_say(metadata):
    assert metadata['Name']=='fsic_nb' and metadata['Version']==cfg['version']
    assert metadata['License-Expression']=='Apache-2.0'
    assert metadata['Requires-Python']==f">={cfg['min_python']}"
    required = metadata.get_all('Requires-Dist')
    bare = {r.split(';')[0].strip().replace(' ', '') for r in required if 'extra ==' not in r}
    assert {b.translate(str.maketrans('', '', '<>=,.0123456789')) for b in bare}==\
        {r.translate(str.maketrans('', '', '<>=,.0123456789')) for r in cfg['requirements'].split()}
    assert {'demo', 'dev'} <= set(metadata.get_all('Provides-Extra'))
    for r in cfg['demo_requirements'].split():   # dev contains demo, so either extra can follow the other
        name = r.split('=')[0].split('>')[0]
        assert {e for e in ('demo', 'dev') if any(q.startswith(name) and f'extra == "{e}"' in q.replace("'", '"') for q in required)}=={'demo', 'dev'}


def test_the_classifiers_follow_settings(metadata):
    found = metadata.get_all('Classifier')
    assert len(set(found))==len(found)
    assert {'Development Status :: 3 - Alpha', 'Intended Audience :: Science/Research', 'Typing :: Typed',
            'Operating System :: OS Independent', f"Programming Language :: Python :: {cfg['min_python']}"} <= set(found)
    assert not [c for c in found if c.startswith('License')], 'the licence is an expression; an index refuses both'


def test_the_metadata_lead_to_documentation_source_changes_and_issues(metadata):
    urls = dict(u.split(', ') for u in metadata.get_all('Project-URL'))
    assert urls=={'Documentation': cfg['doc_host']+cfg['doc_baseurl'], 'Source': cfg['git_url'],
                  'Changelog': f"{cfg['git_url']}/blob/{cfg['branch']}/CHANGELOG.md", 'Issues': f"{cfg['git_url']}/issues"}


def test_placeholder_urls_stand_in_one_file():
    """No address is invented outside settings.ini. _modidx.py and the doors of notebooks, one of which stands in
    README.md, are generated from it, and CITATION.cff is compared with it (tests/test_release.py)."""
    host = cfg['doc_host'].split('//')[1]
    out, failed = call('git', 'ls-files', '--cached', '--others', '--exclude-standard', cwd=root)
    if failed: pytest.skip('not a git clone')
    files = [root/f for f in out.splitlines() if f not in ('settings.ini', 'fsic_nb/_modidx.py', 'CITATION.cff') and (root/f).is_file()]
    door = re.compile(rb'\[Open in Colab\]|!git clone')
    lines = {f.name: [l for l in f.read_bytes().splitlines() if host.encode() in l] for f in files}
    assert [(n, l) for n, found in lines.items() for l in found if not (n.endswith(('.ipynb', 'README.md')) and door.search(l))]==[]


# --- installed --------------------------------------------------------------------------------------------------------

# Ten lines of use that need no extra.
USE = """
import torch, fsic_nb
from fsic_nb import Features, Support, simpleshot
torch.manual_seed(0)
labels = torch.eye(3).repeat(2, 1).bool()                 # two examples of each of three labels
directions = torch.randn(3, 64)
def images(y): return Features(torch.randn(len(y), 49, 64)*.1 + (y.float()@directions)[:, None])
score = simpleshot(torch.zeros(64))(Support(images(labels), labels, None))
found = score(images(labels)).argmax(-1)
assert (found==labels.int().argmax(-1)).all(), found
"""


def test_every_module_imports_with_current_fastcore(bare, tmp_path):
    "And a method scores images; a complete installation into an empty environment is a slow test (tests/test_release.py)."
    names = [f'fsic_nb.{m[:-3]}' for m in modules if m not in ('__init__.py', '__main__.py')]
    code = f'import importlib, fastcore, fsic_nb\nfor m in {names}: importlib.import_module(m)\n{USE}\nprint(fastcore.__version__, fsic_nb.__file__)'
    out, failed = call(bare, '-W', 'ignore', '-c', code, cwd=tmp_path)
    assert not failed, out
    version, where = out.split()[-2:]
    assert int(version.split('.')[0])>=2
    assert Path(where).is_relative_to(bare.parents[1]), 'imported from the repository instead of the wheel'


@pytest.mark.parametrize('command', [c.partition('=')[0] for c in cfg['console_scripts'].split()])
def test_the_console_scripts_answer(bare, command, tmp_path):
    out, failed = call(bare.parent/command, '--help', cwd=tmp_path)
    assert not failed and '--out' in out, out


# --- its face: fsic_nb/__init__.py ------------------------------------------------------------------------------------

def python(code):
    "What a new process that sees this repository prints."
    out, failed = call(sys.executable, '-W', 'ignore', '-c', code, env={'PYTHONPATH': str(root)}, cwd=root)
    assert not failed, out
    return out


def test_importing_the_package_imports_nothing_else():
    "The names in `__all__` are loaded when they are used; `dir` knows them before."
    new = python('import sys; before = {*sys.modules}; import fsic_nb; names = dir(fsic_nb); print(*sorted({*sys.modules}-before))\n'
                 'assert {*fsic_nb.__all__} <= {*names} and not {*fsic_nb.__all__} & {*vars(fsic_nb)}')
    assert new.split()==['fsic_nb']
    new = python('import sys; from fsic_nb import FsicError; print(*sys.modules)').split()
    assert [m for m in new if m.startswith('fsic_nb.')]==['fsic_nb.core']


def test_every_name_of_the_package_is_there():
    "Each comes from the module that the table names, is loaded once, and is no module's name."
    import fsic_nb
    assert 10<=len(fsic_nb.__all__)<=15
    assert not {f'{n}.py' for n in fsic_nb.__all__} & {*modules}, 'importing that module would replace the name'
    for name, module in fsic_nb._module_of.items():
        value = getattr(fsic_nb, name)
        # review adds a method to Tagger, so it is the module that has all of it
        own = 'tagger' if module=='review' else module
        assert value.__module__==f'fsic_nb.{own}' and value.__doc__, name
        assert vars(fsic_nb)[name] is value
    with pytest.raises(AttributeError, match="'fsic_nb' has no attribute 'readd'"): fsic_nb.readd


def test_help_says_what_to_do_first():
    text = python('import fsic_nb; help(fsic_nb)')
    assert text.index('fsic_demo --quick')<text.index('class '), 'before the classes'
    import fsic_nb
    assert not [n for n in fsic_nb.__all__ if f'`{n}`' not in fsic_nb.__doc__], 'its docstring speaks of every name'


def test_the_version_is_that_of_settings():
    import fsic_nb
    assert fsic_nb.__version__==cfg['version']


def test_an_export_keeps_the_face_but_for_its_version(tmp_path, monkeypatch):
    import notebooks
    face = (root/'fsic_nb'/'__init__.py').read_text(encoding='utf-8')
    old = tmp_path/'old'
    old.mkdir()
    (old/'__init__.py').write_text(face.replace(f'__version__ = "{cfg["version"]}"', '__version__ = "0.0.0"'), encoding='utf-8')
    monkeypatch.setattr(notebooks, 'lib', old)
    monkeypatch.setattr(notebooks, 'notebooks', lambda: [])
    (tmp_path/'new').mkdir()
    assert notebooks.exported(tmp_path/'new')['__init__.py']==face
    assert [p for p in notebooks.export_problems() if '__init__' in p]
