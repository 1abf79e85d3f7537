"Runs of another code: a folder that the version before wrote is refused or trained again, never read as something else."
import json, os, shutil, subprocess, sys
from dataclasses import replace
from pathlib import Path

import numpy as np, pytest, torch
from safetensors.torch import load_file

import fsic_nb
from fsic_nb import runs
from fsic_nb.baselines import RelationConfig
from fsic_nb.core import FsicError, hash_code
from fsic_nb.files import read_json, write_json
from fsic_nb.finetune import FineTunedConfig
from fsic_nb.model import PaperConfig
from fsic_nb.recipes import fit, make_plan, run_folder
from fsic_nb.refined import RefinedConfig
from fsic_nb.runs import begin_run, load_model, save_model
from fsic_nb.train import Plan, Schedule, train

root = Path(__file__).resolve().parents[1]
silent = lambda line: None


@pytest.fixture(scope='module')
def exp(tmp_path_factory):
    "An experiment that needs no network: quick scenes with random features."
    from types import SimpleNamespace
    from fsic_nb.experiment import Experiment
    from fsic_nb.data import ImageSet, LabelSplit
    r = np.random.default_rng(0)
    names = [f'label {c}' for c in range(8)]
    y = np.eye(8, dtype=bool)[np.arange(80)%8] | (r.random((80, 8))<.1)
    images = ImageSet([f'{i}.jpg' for i in range(80)], names, y, 'toy')
    f = torch.randn(80, 9, 6, generator=torch.Generator().manual_seed(0))
    class Store:
        meta, channels, key, means = dict(backbone='none', weights='none'), 6, 'toy', f.mean(1)
        def __len__(self): return len(f)
        def __getitem__(self, ids): return f[torch.as_tensor(ids)]
        def mean_of(self, ids): return f[torch.as_tensor(ids)].mean(-2)
    words = torch.randn(8, 5, generator=torch.Generator().manual_seed(1))
    return Experiment('scenes', images, LabelSplit('toy', names[:4], names[4:6], names[6:]), Store(), words, protocol='masked')

def old(cfg):
    "A configuration as the version before wrote it: the dimension of word vectors was called `words`."
    d = cfg.to_dict()
    if 'head' in d: d['head'] = {'words' if k=='word_dim' else k: v for k, v in d['head'].items()}
    return {'words' if k=='word_dim' else k: v for k, v in d.items()}

OLD = [PaperConfig(6, 5, dim=8, heads=2), RefinedConfig(6, 5, dim=8),
       FineTunedConfig('test_resnet', PaperConfig(96, 5, dim=8, heads=2), size=48, weights=None)]


# --- folders of the version before -------------------------------------------------------------------------------------

@pytest.mark.parametrize('cfg', OLD, ids=lambda c: c.kind)
def test_a_model_of_the_version_before_is_refused(cfg, tmp_path):
    "Even its weights would fit: only the name in config.json tells."
    save_model(cfg.build(), tmp_path/'best')
    assert load_model(tmp_path/'best').cfg==cfg
    write_json(tmp_path/'best'/'config.json', old(cfg))
    with pytest.raises(FsicError, match="best/config.json: .*unknown key 'words'.* train again") as e: load_model(tmp_path/'best')
    assert '\n' not in str(e.value)

def small_plan(exp, cfg=None):
    cfg = cfg or PaperConfig(6, 5, dim=8, heads=2, prototype='wagp')
    return Plan(cfg, [exp.episodes('train', 1, ways=2)], Schedule(steps=2, warmup=1, every=1))

def test_a_run_of_the_version_before_is_not_continued(exp, tmp_path):
    run, plan = tmp_path/'run', small_plan(exp)
    train(plan, exp, run)
    before = (run/'best'/'weights.safetensors').read_bytes()
    now = read_json(run/'run.json')
    without = {k: v for k, v in now.items() if k!='code'}
    write_json(run/'run.json', without)
    with pytest.raises(FsicError, match='run: was begun by other code .* delete it to train again'): train(plan, exp, run)
    write_json(run/'run.json', {**without, 'config': old(plan.cfg)})
    with pytest.raises(FsicError, match='run: holds another run .config differs.'): train(plan, exp, run)
    write_json(run/'run.json', {**now, 'code': '0'*16})
    with pytest.raises(FsicError, match='begun by other code'): train(plan, exp, run)
    assert (run/'best'/'weights.safetensors').read_bytes()==before
    write_json(run/'run.json', now)
    assert load_model(run/'best').cfg==train(plan, exp, run).cfg       # and its own run is continued

def test_a_cached_run_of_the_version_before_is_trained_again(exp, tmp_path, monkeypatch):
    "Its folder has another name, since code is part of the key; what lies under the new name by mistake is refused."
    monkeypatch.setenv('FSIC_HOME', str(tmp_path))
    plan = small_plan(exp)
    here = run_folder('wagp', plan, exp)
    with monkeypatch.context() as m:
        m.setattr(sys.modules['fsic_nb.train'], 'hash_code', lambda *modules: 'the code of before')
        before = run_folder('wagp', plan, exp)
    assert before!=here and before.parent==here.parent
    train(plan, exp, before)
    write_json(before/'best'/'config.json', old(plan.cfg))
    said = []
    model = fit('wagp', exp, say=said.append, plan=plan)               # the old folder lies there and is not looked at
    assert here.is_dir() and 'cached' not in said[0] and model.cfg==plan.cfg
    fit('wagp', exp, say=said.append, plan=plan)
    assert said[1]=='training  wagp: 2 steps, cached'
    write_json(here/'best'/'config.json', old(plan.cfg))
    with pytest.raises(FsicError, match="unknown key 'words'"): fit('wagp', exp, say=silent, plan=plan)

def test_evaluating_an_old_run_names_what_is_wrong(exp, tmp_path):
    from fsic_nb.recipes import open_run
    from fsic_nb.runs import describe_run, read_run
    run, plan = tmp_path/'run', small_plan(exp)
    train(plan, exp, run)
    write_json(run/'about.json', describe_run('wagp', exp, 0, False))
    assert open_run(read_run(run), exp).cfg==plan.cfg
    write_json(run/'best'/'config.json', old(plan.cfg))
    with pytest.raises(FsicError, match="run/best/config.json: .*unknown key 'words'"): open_run(read_run(run), exp)


# --- another source, another key ---------------------------------------------------------------------------------------

@pytest.fixture
def library(tmp_path):
    "Make copies of the library, one of whose modules is changed."
    def copy(name, module='', a='', b=''):
        shutil.copytree(root/'fsic_nb', tmp_path/name, ignore=shutil.ignore_patterns('__pycache__'))
        if module:
            path = tmp_path/name/f'{module}.py'
            text = path.read_text(encoding='utf-8')
            assert a in text, a
            path.write_text(text.replace(a, b, 1), encoding='utf-8')
        return tmp_path/name
    return copy

CHANGES = [('embed', 'def score(', 'later = 1\n\ndef score(', True, True),               # imported by both
           ('interact', 'class ', 'later = 1\n\nclass ', True, False),                             # by the paper's model alone
           ('train', 'opt.step()', 'opt.step(); pass', True, True),                       # how any of them is trained
           ('cli', 'def main(', 'later = 1\n\ndef main(', False, False)]                  # by no method

@pytest.mark.parametrize('module,a,b,paper,refined', CHANGES, ids=[c[0] for c in CHANGES])
def test_a_changed_source_has_another_key(module, a, b, paper, refined, library, exp, monkeypatch):
    "The same configuration under another code is another run in the cache; comments and docstrings do not count."
    plans = [small_plan(exp), small_plan(exp, RefinedConfig(6, 5, dim=8))]
    def keys(folder):
        monkeypatch.setattr(sys.modules['fsic_nb.train'], 'hash_code', lambda *modules: hash_code(*modules, folder=folder))
        return [run_folder('x', p, exp) for p in plans]
    same = keys(library('same'))
    changed = keys(library('changed', module, a, b))
    assert [x!=y for x, y in zip(same, changed)]==[paper, refined]
    monkeypatch.undo()
    assert [run_folder('x', p, exp) for p in plans]==same


def test_comments_do_not_count(library):
    noted = library('noted', 'embed', 'def score(', '# a remark\n\ndef score(')
    assert hash_code('fsic_nb.model', folder=noted)==hash_code('fsic_nb.model')


# --- a fresh process ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('cfg', [*OLD, RelationConfig(6)], ids=lambda c: c.kind)
def test_a_run_is_opened_by_a_process_that_knows_nothing_else(cfg, tmp_path):
    "`fsic_nb.load_model` finds the module of a model's kind itself."
    save_model(cfg.build(), tmp_path/'best')
    code = (f"import fsic_nb, sys; assert not any(m.startswith('fsic_nb.') for m in sys.modules); "
            f"m = fsic_nb.load_model({str(tmp_path/'best')!r}); print(type(m).__module__, type(m).__name__, m.training, len(m.state_dict()))")
    p = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, env={**os.environ, 'PYTHONPATH': str(root)})
    assert p.returncode==0, p.stderr[-2000:]
    cls = type(cfg.build())
    assert p.stdout.split()==[cls.__module__, cls.__name__, 'False', str(len(load_file(tmp_path/'best'/'weights.safetensors')))]


# --- runs of somebody else ---------------------------------------------------------------------------------------------

@pytest.fixture
def finished(exp, tmp_path, monkeypatch):
    "A finished run that was made in this home, and what its about.json says."
    from fsic_nb.runs import describe_run, write_about
    monkeypatch.setenv('FSIC_HOME', str(tmp_path/'home'))
    train(small_plan(exp), exp, tmp_path/'run')
    about = dict(describe_run('wagp', exp, 0, False), backbone='lite0', data='scenes')
    write_about(tmp_path/'run', about)
    return tmp_path/'run', about

class Opened(Exception): "What a run names is about to be used."

def score(run, monkeypatch, *words):
    "What the command says and its exit code, or `Opened`."
    from fsic_nb import cli, studies
    def opened(*args, **options): raise Opened
    for name in ('choose_backbone', 'prepare', 'load_model'): monkeypatch.setattr(studies, name, opened)
    monkeypatch.setattr(sys, 'argv', ['fsic_evaluate', '--run', str(run), '--out', str(run.parent/'r.json'), *words])
    cli.fsic_evaluate()

@pytest.mark.parametrize('change', [dict(backbone='hf-hub:a/b'), dict(backbone='resnet50'), dict(options=dict(words='/etc/passwd')),
    dict(options=dict(split='../secret.json')), dict(options=dict(pictures='/home')), dict(options=dict(annotations='/dev/zero'))], ids=str)
def test_what_a_foreign_run_names_is_asked_about_before_it_is_opened(finished, change, monkeypatch, capsys):
    from fsic_nb.runs import write_about
    run, about = finished
    write_json(run/'about.json', {**about, **change})
    with pytest.raises(SystemExit) as e: score(run, monkeypatch)
    err = capsys.readouterr().err
    name = next(iter(change.get('options', change).values()))
    assert e.value.code==2 and f'{name}; name these yourself, or add --trust' in err and err.count('\n')==1
    with pytest.raises(Opened): score(run, monkeypatch, '--trust')
    write_about(run, {**about, **change})                    # the same words of a run that was made here
    with pytest.raises(Opened): score(run, monkeypatch)

def test_a_foreign_run_may_name_what_ships(finished, monkeypatch):
    run, about = finished
    write_json(run/'about.json', {**about, 'options': dict(words='minilm', queries=3)})
    with pytest.raises(Opened): score(run, monkeypatch)

@pytest.mark.parametrize('mark', ['', '0'*64, 'ä', '\ud800', None])
def test_a_mark_belongs_to_its_home_and_to_every_word(finished, mark, tmp_path, monkeypatch):
    run, about = finished
    assert runs.read_run(run)['own'] and (tmp_path/'home'/'key').stat().st_mode&0o77==0
    now = read_json(run/'about.json')
    def own(d):
        (run/'about.json').write_text(json.dumps(d))
        return runs.read_run(run)['own']
    assert own(now) and not own({**now, 'seed': 1}) and not own({**now, 'more': ''})
    assert not own({k: v for k, v in now.items() if k!='mark'} if mark is None else {**now, 'mark': mark})
    assert own(now)
    monkeypatch.setenv('FSIC_HOME', str(tmp_path/'another'))
    assert not own(now) and not (tmp_path/'another').exists()
    assert runs.read_run(run, trust=True)['own']

def test_a_foreign_model_names_no_network_that_is_fetched(tmp_path, monkeypatch):
    cfg = FineTunedConfig('test_resnet', PaperConfig(96, 5, dim=8, heads=2), size=48, weights=None)
    save_model(cfg.build(), tmp_path/'best')
    assert load_model(tmp_path/'best').cfg==cfg                       # a known one, of random weights
    write_json(tmp_path/'best'/'config.json', {**cfg.to_dict(), 'backbone': 'hf-hub:a/b'})
    with monkeypatch.context() as m:
        m.setattr(FineTunedConfig, 'build', lambda self: (_ for _ in ()).throw(Opened))
        with pytest.raises(FsicError, match='asks for the network hf-hub:a/b, which would be fetched; .*--trust'): load_model(tmp_path/'best')
        with pytest.raises(Opened): load_model(tmp_path/'best', trust=True)

def test_a_foreign_space_names_no_network_that_is_fetched(tmp_path, monkeypatch):
    from safetensors import safe_open
    from safetensors.torch import save_file
    from fsic_nb import Tagger, space
    from fsic_nb.core import shipped
    with safe_open(shipped('models', 'photographs.safetensors'), 'pt') as f: about, tensors = f.metadata(), {k: f.get_tensor(k) for k in f.keys()}
    other = json.dumps({**json.loads(about['space']), 'backbone': 'hf-hub:a/b'})
    save_file(tensors, tmp_path/'space.safetensors', {**about, 'space': other})
    def opened(*args, **options): raise Opened
    monkeypatch.setattr(space, 'load_backbone', opened)
    with pytest.raises(FsicError, match='asks for the network hf-hub:a/b, which would be fetched; .*--trust'): space.load_space(tmp_path/'space.safetensors')
    with pytest.raises(Opened): space.load_space(tmp_path/'space.safetensors', trust=True)
    asked = []
    monkeypatch.setattr(sys.modules['fsic_nb.tagger'], 'load_space', lambda path, trust, device: asked.append(trust) or opened())
    monkeypatch.setattr(sys.modules['fsic_nb.tagger'], '_check_about', lambda *args: None)
    write_json(tmp_path/'tagger.json', dict(form='', params=Tagger().get_params(), words=[], tags=[], examples=[]))
    for trust in (False, True):
        with pytest.raises(Opened): Tagger.load(tmp_path, trust)
    assert asked==[False, True]


# --- where a run is written --------------------------------------------------------------------------------------------

@pytest.mark.parametrize('name, words', [('demo', []), ('train', []), ('train', ['--config', 'voc_1shot_resnet101_paper', '--root', '.']),
    ('evaluate', []), ('finetune', ['--root', '.'])], ids=lambda x: ' '.join(x) if isinstance(x, list) else x)
def test_a_place_where_nothing_can_be_written_is_found_before_the_work(name, words, tmp_path, monkeypatch, capsys):
    from fsic_nb import cli, studies
    def begun(*args, **options): raise Opened
    for work in ('prepare', 'choose_backbone', 'read_images', 'fit', 'finetune'): monkeypatch.setattr(studies, work, begun)
    for check in ('check_data', 'check_options'): monkeypatch.setattr(studies, check, lambda *args: None)
    (tmp_path/'file').write_text('')
    def call(out):
        monkeypatch.setattr(sys, 'argv', [f'fsic_{name}', *words, '--out', str(out)])
        cli.COMMANDS[name]()
    with pytest.raises(SystemExit) as e: call(tmp_path/'file'/'out')
    assert e.value.code==2 and 'no file can be written there' in (err := capsys.readouterr().err) and err.count('\n')==1
    with pytest.raises(Opened): call(tmp_path/'new'/'out')
    assert [p.name for p in tmp_path.iterdir()]==['file']
