"`fsic_train` and `fsic_evaluate`, as a user runs them and as functions: runs, names, episodes on COCO, and errors."
import contextlib, io, json, os, re, shutil, subprocess, sys
from dataclasses import replace
from pathlib import Path
import numpy as np, pytest
from hypothesis import given, settings, strategies as st
from fsic_nb.core import FsicError
from fsic_nb.files import read_json, write_json
from fsic_nb.data import LabelSplit
from fsic_nb.protocols import COCO_NAMES, Options
from test_demo import cut_voc, fsic_demo, numbers

BIN = Path(sys.executable).parent
silent = lambda line: None

@pytest.fixture(scope='module')
def cache(shared_home):
    "The session's cache folder: quick scenes are built and looked at once."
    old,os.environ['FSIC_HOME'] = os.environ.get('FSIC_HOME'),str(shared_home)
    yield shared_home
    os.environ.pop('FSIC_HOME') if old is None else os.environ.update(FSIC_HOME=old)

@pytest.fixture(scope='module')
def run(cache, tmp_path_factory):
    "A run of the fastest method, trained by the console script."
    out = tmp_path_factory.mktemp('runs')/'laso'
    p = command('train', '--method', 'laso', '--quick', '--out', out)
    assert p.returncode==0, p.stderr
    assert 'training  laso: 40 steps' in p.stdout and f'fsic_evaluate --run {out}' in p.stdout
    return out

@pytest.fixture(scope='module')
def quick(cache):
    "Quick scenes as `prepare` gives them."
    from fsic_nb.experiment import prepare
    return prepare('scenes', quick=True, say=silent)

def command(name, *args, **kw): return fsic_demo(*args, home=os.environ.get('FSIC_HOME', 'nowhere'), command=BIN/f'fsic_{name}', **kw)

def same(a, b): return all((a.state_dict()[k]==v).all() for k,v in b.state_dict().items())


# --- the console scripts -----------------------------------------------------------------------------------------------

@pytest.mark.parametrize('name', ['demo', 'train', 'evaluate'])
def test_help_is_fast(name):
    p = subprocess.run([sys.executable, '-X', 'importtime', BIN/f'fsic_{name}', '--help'], capture_output=True, text=True)
    assert p.returncode==0 and '--quick' in p.stdout and not re.search(r'\| +(torch|matplotlib)\n', p.stderr)

def test_no_example_is_a_number_of_shots(cache, tmp_path):
    "Methods that need an example are left out of 0 shots, and it is said; rivals stand in the same records."
    names = 'name,ridge-name,chance,ceiling,logistic,ridge,svm'
    p = command('evaluate', '--method', names, '--shots', '0,1', '--quick', '--episodes', 3, '--baseline', 'ridge-name', '--out', tmp_path/'r.json')
    assert p.returncode==0, p.stderr
    rows = read_json(tmp_path/'r.json')
    able = ['ridge-name', 'name', 'chance', 'ceiling']
    assert [r['method'] for r in rows if r['shots']==0]==able
    assert [r['method'] for r in rows if r['shots']==1]==[*able, 'logistic', 'ridge', 'svm']
    assert '0-shot: left out, since they need an example: logistic, ridge, svm' in p.stdout
    assert {r['baseline'] for r in rows}=={'ridge-name'} and 'paired difference to ridge around the name' in p.stdout
    by = {(r['method'], r['shots']): r['map'] for r in rows}
    assert by['name', 0]==by['ridge-name', 0] and by['ceiling', 1]>by['ridge', 1]>by['chance', 1]
    p = command('evaluate', '--method', 'logistic', '--shots', '0', '--quick', '--episodes', 3, '--out', tmp_path/'n.json')
    assert p.returncode==2 and 'no method here can score without an example' in p.stderr and not (tmp_path/'n.json').exists()

def test_train_and_evaluate(run, cache, tmp_path):
    about = read_json(run/'about.json')
    assert (about['method'], about['data'], about['backbone'], about['size'], about['seed'], about['quick'])==('laso', 'scenes', 'lite0', 224, 0, True)
    assert len(about['train'])==64 and len(about['val'])==16 and not set(about['train'])&set(about['val'])
    p = command('evaluate', '--run', run, '--method', 'protonet,oracle', '--quick', '--episodes', 3, '--out', tmp_path/'a'/'r.json')
    assert p.returncode==0, p.stderr
    rows = read_json(tmp_path/'a'/'r.json')
    assert [(r['method'], r['shots'], r['episodes']) for r in rows]==[(m, k, 3) for k in (1, 5) for m in ('simpleshot', 'protonet', 'oracle', 'laso')]
    assert [(r.get('run'), r.get('seen')) for r in rows[:4]]==[(None, None)]*3+[(str(run), 0)]
    assert all(r['baseline']=='simpleshot' and 0<r['map']<100 for r in rows) and rows[0]['diff']==0
    assert 'LaSO' in p.stdout and '5-shot mAP' in p.stdout
    from fsic_nb.studies import Comparison, compare
    compare([run], ['protonet', 'oracle'], how=Comparison([1, 5], 3, quick=True), out=tmp_path/'b.json', say=silent)
    assert numbers(tmp_path/'b.json')==numbers(tmp_path/'a'/'r.json')

def test_a_finished_run_is_not_trained_again(run, cache):
    from fsic_nb.studies import learn
    before,lines = (run/'best'/'weights.safetensors').read_bytes(),[]
    learn('laso', out=run, quick=True, say=lines.append)
    assert any('laso: 40 steps, cached' in l for l in lines) and (run/'best'/'weights.safetensors').read_bytes()==before

@pytest.mark.parametrize('args,says', [(['--method', 'laso', '--out', 'RUN', '--seed', '1', '--quick'], 'holds another run (seed is 0, not 1)'),
                                       (['--method', 'relation', '--out', 'RUN', '--quick'], 'holds another run (method is laso, not relation)'),
                                       (['--method', 'lasso'], 'did you mean laso'), (['--method', 'bcr'], "'bcr' is not trained"),
                                       (['--data', 'imagenet', '--root', '.'], "use 'scenes', 'voc'"), (['--split', 'x.json'], '--split: the scenes are built with'), (['--queries', '0'], '--queries 0: expected 1'), (['--data', 'voc'], 'needs --root'),
                                       (['--config', 'x.toml', '--method', 'wagp'], 'says method, data, network and episodes itself'), (['--config', 'x.toml', '--size', '96'], '--quick, --size.'),
                                       (['--out', 'RUN', '--method', 'laso', '--quick', '--size', '96'], 'holds another run (size is 224, not 96)'),
                                       (['--out', 'RUN', '--method', 'laso', '--quick', '--backbone', 'lite1'], 'holds another run (backbone is lite0, not lite1)'),
                                       (['--size', '31'], '--size 31: expected 32 or more'), (['--backbone', 'lite'], 'did you mean lite2 or lite1 or lite0'), (['--config', 'x.toml'], 'x.toml: cannot be read'),
                                       (['--seed', '-1'], '--seed -1'), (['--out', 'full'], 'is there and is no run')])
def test_train_errors(run, args, says, tmp_path, monkeypatch):
    (tmp_path/'full').mkdir(); (tmp_path/'full'/'letter.txt').write_text('mine')
    check_error('train', [str(run) if a=='RUN' else a for a in args], says, tmp_path, monkeypatch)

def check_error(name, args, says, work, monkeypatch):
    "One line on stderr, exit code 2, nothing written. (A fresh process costs seconds; this is the same function.)"
    import fsic_nb.cli as cli
    monkeypatch.chdir(work); monkeypatch.setattr(sys, 'argv', [f'fsic_{name}', *args])
    before,err = sorted(work.rglob('*')),io.StringIO()
    with contextlib.redirect_stderr(err), contextlib.redirect_stdout(None), pytest.raises(SystemExit) as e: run_cli(getattr(cli, f'fsic_{name}'), args)
    assert e.value.code==2 and err.getvalue().startswith('error: ') and err.getvalue().count('\n')==1 and says in err.getvalue(), err.getvalue()
    assert sorted(work.rglob('*'))==before

def run_cli(f, args):
    "Call a command with its options as keywords."
    kw,it = {},iter(args)
    for a in it: kw[a[2:]] = True if a=='--quick' else next(it)
    f(**{k: int(v) if k in ('seed', 'episodes', 'size', 'queries', 'negatives') else v for k,v in kw.items()})

@pytest.mark.parametrize('args,says', [
    (['--shots', '-1'], "--shots '-1': expected whole numbers from 0 on"), (['--shots', '1;5'], 'such as 0,1,5'), (['--episodes', '0'], '--episodes 0: expected 1 or more'), (['--few', 'keep'], '--few keep: use ask or drop'), (['--files', 'present'], '--files: the scenes are built with'),
    (['--run', 'nowhere'], '--run nowhere: no such folder; make it with fsic_train'), (['--run', 'full'], 'is no run (it has no about.json)'),
    (['--method', 'refind'], "no method is called 'refind'; did you mean refined"), (['--method', 'zzz'], 'known are protonet, simpleshot'),
    (['--method', 'oracle', '--data', 'voc', '--root', '.'], 'oracle needs true masks, which voc does not have'),
    (['--data', 'coco'], '--data coco needs --root'),
    (['--data', 'imagenet'], "use 'scenes', 'voc'"), (['--data', 'nuswide'], '--data nuswide needs --root'), (['--out', 'full'], '--out full: no file can be written there'),
    (['--out', 'full/letter.txt/r.json'], 'no file can be written there'), (['--seed', '-1'], '--seed -1'),
    (['--size', '31'], '--size 31: expected 32 or more'), (['--backbone', 'lite'], "backbone 'lite': no such network; did you mean lite2")])
def test_evaluate_errors(args, says, tmp_path, monkeypatch):
    (tmp_path/'full').mkdir(); (tmp_path/'full'/'letter.txt').write_text('mine')
    check_error('evaluate', args, says, tmp_path, monkeypatch)

def test_an_error_in_a_process_of_its_own(tmp_path):
    p = fsic_demo('--shots', 'x', home=tmp_path/'home', command=BIN/'fsic_evaluate', cwd=tmp_path)
    assert p.returncode==2 and p.stderr.startswith('error: --shots') and p.stderr.count('\n')==1 and not list(tmp_path.iterdir())

def change_about(run, **kw): write_json(run/'about.json', {**read_json(run/'about.json'), **kw})

def other_channels(run):
    from fsic_nb.baselines import LasoConfig
    from fsic_nb.runs import save_model
    save_model(LasoConfig(8).build(), run/'best')

@pytest.mark.parametrize('change,says', [(other_channels, 'was made with channels 8, the features here have 1280'),
    (lambda run: change_about(run, weights='00'), 'was made with weights 00'), (lambda run: change_about(run, backbone='lite1'), 'was made with weights'),
    (lambda run: change_about(run, size=96), 'was made with weights'), (lambda run: change_about(run, backbone='lite'), 'was not made here, and asks for backbone lite; name'),
    (lambda run: write_json(run/'about.json', {}), 'about.json: object missing required field method'), (lambda run: shutil.rmtree(run/'last'), 'is not finished (0 of 40 steps)'),
    (lambda run: (run/'about.json').write_text('{'), 'about.json: not valid JSON')])
def test_a_run_that_does_not_fit(run, change, says, tmp_path, monkeypatch):
    copy = shutil.copytree(run, tmp_path/'copy')
    change(copy)
    check_error('evaluate', ['--run', str(copy), '--quick'], says, tmp_path, monkeypatch)


@pytest.mark.parametrize('asked,says', [(['--backbone', 'lite1'], 'was made with backbone lite0, not lite1; leave out --backbone and --size'),
    (['--size', '96'], 'was made with size 224, not 96')])
def test_a_run_is_not_scored_on_another_network(run, asked, says, tmp_path, monkeypatch):
    "It is said before a feature is extracted."
    from fsic_nb import experiment
    monkeypatch.setattr(experiment, 'extract', None)
    check_error('evaluate', ['--run', str(run), '--quick', *asked], says, tmp_path, monkeypatch)

def test_a_run_of_an_older_version_is_scored_on_its_network(run, tmp_path):
    "Its size was not written down; it was the network's own."
    from fsic_nb.studies import choose_network, learn
    from fsic_nb.runs import read_run
    copy = shutil.copytree(run, tmp_path/'copy')
    about = read_json(copy/'about.json')
    write_json(copy/'about.json', {k: v for k, v in about.items() if k!='size'})
    assert choose_network([read_run(copy)])==dict(backbone='lite0', size=None)
    with pytest.raises(FsicError, match='weights is'): learn('laso', out=copy, quick=True, say=silent, size=96)
    learn('laso', out=copy, quick=True, say=silent)
    assert read_json(copy/'about.json')==about             # continued, it says its size

@pytest.mark.parametrize('data,options,network', [('scenes', {}, ('lite0', 224, (7, 7))), *((d, {}, ('lite2', 336, (11, 11))) for d in ('voc', 'coco', 'folder')),
    ('voc', dict(backbone='lite0'), ('lite0', 224, (7, 7))), ('voc', dict(size=224), ('lite2', 224, (7, 7))), ('scenes', dict(backbone='lite1', size=96), ('lite1', 96, (3, 3)))])
def test_the_network_of_each_data_set(data, options, network):
    from fsic_nb.experiment import Options, choose_backbone
    bb = choose_backbone(data, Options(**options))
    assert (bb.name, bb.size, bb.grid)==network
    assert choose_backbone('scenes', Options(backbone=bb)) is bb is choose_backbone('voc', Options(backbone=bb, size=bb.size))
    with pytest.raises(FsicError, match=f'reads {bb.size} pixels; leave out the size'): choose_backbone(data, Options(backbone=bb, size=32))

def test_the_demo_takes_a_network(monkeypatch, tmp_path):
    "Options of the command reach `prepare`."
    from fsic_nb import cli, studies
    asked = []
    def prepare(*args, **options): asked.append(options); raise FsicError('enough.')
    monkeypatch.setattr(studies, 'prepare', prepare)
    for options in ({}, dict(backbone='lite1', size=96)):
        with pytest.raises(SystemExit): cli.fsic_demo(out=str(tmp_path/'out'), **options)
    assert asked==[{}, dict(backbone='lite1', size=96)]


# --- plans and trainings -----------------------------------------------------------------------------------------------

def test_every_method_has_a_plan(quick):
    from fsic_nb.recipes import RECIPES, make_plan, run_folder
    plans = {m: make_plan(m, quick, 0, True, silent) for m in RECIPES}
    assert {m: [k.shots for k in p.kinds] for m,p in plans.items()}=={m: {'refined': [1, 5], 'paper-best-5': [5]}.get(m, [1]) for m in RECIPES}
    assert plans['paper'].basis==run_folder('wagp', plans['wagp'], quick, 0, True).name
    assert len({run_folder('x', p, quick) for p in plans.values()})==len(plans)
    assert make_plan('refined', replace(quick, name='voc'), 0, True, silent).cfg.classes==1000

def test_refined_training_is_a_function_of_its_seed(quick, tmp_path):
    import torch
    from fsic_nb.recipes import fit, make_plan
    from fsic_nb.refined import RefinedConfig
    from fsic_nb.train import Schedule
    cfg = RefinedConfig(quick.features.channels, quick.words.shape[1], dim=16)
    def refined(seed=0, **kw):
        plan = replace(make_plan('refined', quick, seed, True, silent, cfg), schedule=Schedule(steps=2, lr=1e-3, warmup=1))
        return fit('refined', quick, seed, True, **{'say': silent, **kw}, plan=plan)
    torch.manual_seed(1); a = refined(run=tmp_path/'a')
    torch.manual_seed(2); b = refined()
    lines = []
    c = refined(say=lines.append)
    d = refined(seed=1)
    assert same(a, b) and same(b, c) and not same(c, d) and lines==['training  refined: 2 steps, cached']

def test_without_validation_labels_the_last_weights_are_kept(quick, tmp_path):
    from fsic_nb.recipes import fit, make_plan
    from fsic_nb.data import LabelSplit
    from fsic_nb.train import Schedule
    none = replace(quick, split=LabelSplit('none', quick.split.tasks('train'), [], quick.split.tasks('test')))
    plan = replace(make_plan('laso', none, 0, True, silent), schedule=Schedule(steps=2, warmup=1))
    fit('laso', none, quick=True, say=silent, run=tmp_path/'r', plan=plan)
    assert not [l for l in (tmp_path/'r'/'log.jsonl').read_text().splitlines() if 'val' in json.loads(l)]

def test_methods_by_name(quick):
    from fsic_nb.baselines import TRAINING_FREE
    from fsic_nb.recipes import build_methods
    from fsic_nb.support import load_episodes
    support, query, y = load_episodes(quick, [quick.episodes('test', 1)[0]])
    models = {'refined': lambda support: 'mine'}
    for name, method in build_methods([*TRAINING_FREE, 'oracle', 'refined'], quick, models, say=silent).items():
        assert method(support)=='mine' if name=='refined' else method(support)(query).shape==y.shape


# --- COCO --------------------------------------------------------------------------------------------------------------

@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32-1), st.integers(2, 9), st.integers(10, 120), st.sampled_from([.05, .2, .5]), st.integers(1, 5))
def test_coco_episodes_can_be_drawn_or_it_is_said(seed, labels, n, density, shots):
    from fsic_nb.experiment import widest_episodes
    from fsic_nb.data import ImageSet
    y = np.random.default_rng(seed).random((n, labels))<density
    images = ImageSet([f'{i}.jpg' for i in range(n)], [f'c{c}' for c in range(labels)], y, 'made')
    names = images.names[:-1]                              # the last label is no test label
    try: eps = widest_episodes(images, LabelSplit('made', [], [], names), shots, protocol='masked')
    except FsicError as e: assert 'fewer than two test labels' in str(e); return
    left = eps.pools[0].names
    assert len(left)>1 and left==[n for n in names if n in left] and eps.protocol=='masked'
    assert all(images.counts()[images.index([n])]>=shots+4 for n in left)
    for e in range(20): assert len(set(eps[e].support) | set(eps[e].query))==len(left)*(shots+4)
    assert left==left_by_its_error(images, names, shots)

def left_by_its_error(images, names, shots, queries=4, n=20):
    "The labels that remained when the label to leave out was read off the error's text, before it had a type."
    from fsic_nb.data import enough
    from fsic_nb.episodes import Episodes
    few = True
    while True:
        while names and few: names, few = enough(images, names, shots+queries, 'masked')
        if len(names)<2: return []
        try:
            eps = Episodes(images, LabelSplit('made', [], [], names), 'test', shots, queries, 0, 'masked')
            for e in range(n): eps[e]
            return names
        except FsicError as e: short = re.search('left for (.+?);', str(e))
        count = dict(zip(names, images.counts()[images.index(names)]))
        out = short[1] if short else min(names, key=count.get)
        names, few = [x for x in names if x!=out], True

NAMES = ['person', 'motorcycle', 'dog', 'tv', 'potted plant', 'cat', 'zebra']

def write_coco(root):
    "Ten pictures of dogs with cats, of tvs and of potted plants, a person on a motorcycle, and one picture of each of the 80 labels but these."
    from PIL import Image
    r,own = np.random.default_rng(0),[[c] for c in (2, 3, 4) for _ in range(10)]+[[0], [0, 1], [6]]
    for i in range(10): own[i].append(5)
    names = NAMES+[n for n in COCO_NAMES if n not in NAMES]
    own += [[c] for c in range(len(NAMES), 80)]
    for sub in ('annotations', 'images'): (root/sub).mkdir(parents=True)
    for i,cs in enumerate(own):
        a = r.integers(0, 60, (64, 64, 3)).astype(np.uint8)
        for c in cs: a[8*c%64:,8*c%64:] = np.eye(3)[c%3]*(255-20*(c%7))
        Image.fromarray(a).save(root/'images'/f'{i:012d}.jpg')
    write_json(root/'annotations'/'instances_mini.json', dict(images=[dict(id=i, file_name=f'{i:012d}.jpg') for i in range(len(own))],
        categories=[dict(id=2*names.index(n)+1, name=n) for n in COCO_NAMES],
        annotations=[dict(id=100*i+c, image_id=i, category_id=2*c+1, iscrowd=0) for i,cs in enumerate(own) for c in cs]))
    return root

def test_evaluate_on_coco(run, tmp_path):
    from fsic_nb.studies import Comparison, compare
    lines, root = [], str(write_coco(tmp_path/'coco'))
    change_about(shutil.copytree(run, tmp_path/'laso'), train=['tv', 'apple'], val=['dog'])
    rows = compare([tmp_path/'laso'], ['bcr', 'laso'], 'coco', root, Comparison([1, 5], 3, quick=True), tmp_path/'r.json', lines.append)
    assert [(r['method'], r['shots'], r['split']) for r in rows]==[(m, k, s) for k,s in ((1, 'coco (4 labels)'), (5, 'coco (3 labels)')) for m in ('simpleshot', 'bcr', 'laso')]
    assert all(r['protocol']=='masked' and 0<r['map']<=100 for r in rows) and rows[2]['seen']==2
    said = '\n'.join(lines)
    assert sorted(re.search('1-shot: 4 of 66 test labels have images enough: (.*); left out: ', said)[1].split(', '))==['cat', 'dog', 'potted plant', 'tv']
    assert '5-shot: 3 of 66 test labels' in said                                                        # cat and dog share their ten pictures
    assert 'the mean of the 14 images without any test label' in said and '3 test labels are not unseen, it was trained or chosen on them: dog, tv, apple' in said
    with pytest.raises(FsicError, match='fewer than two test labels have the 13 images of a 9-shot episode'): compare([], ['bcr'], 'coco', root, Comparison([9], 3, options=Options(backbone='lite0')), out=tmp_path/'no.json', say=silent)
    assert not (tmp_path/'no.json').exists()

def test_the_centre_without_any_other_image(quick):
    from fsic_nb.experiment import say_centre
    from fsic_nb.data import LabelSplit
    lines = []
    exp = replace(quick, split=LabelSplit('all', [], [], quick.images.names))
    say_centre(exp, lines.append)
    assert np.allclose(exp.centre, quick.features.mean_of(slice(None)).mean(0), atol=1e-5) and 'the mean of all images' in lines[0]


# --- photographs -------------------------------------------------------------------------------------------------------

def test_train_and_evaluate_on_photographs(photos, cache, tmp_path):
    root = cut_voc(photos, tmp_path/'voc', 10)
    p = command('train', '--method', 'refined', '--data', 'voc', '--root', root, '--backbone', 'lite0', '--quick', '--out', tmp_path/'run')
    assert p.returncode==0, p.stderr
    assert read_json(tmp_path/'run'/'best'/'config.json')['classes']==1000
    from fsic_nb.studies import Comparison, compare
    lines = []
    rows = compare([tmp_path/'run'], data='voc', root=str(root), how=Comparison([1], 3), out=tmp_path/'r.json', say=lines.append)
    assert any('channels of lite0@224' in l for l in lines)                # the run's own network, not that of photographs
    assert [r['method'] for r in rows]==['simpleshot', 'refined'] and all(r['map']>45 for r in rows)


# --- `python -m fsic_nb COMMAND` ---------------------------------------------------------------------------------------

def module(*args): return subprocess.run([sys.executable, '-m', 'fsic_nb', *args], capture_output=True, text=True)

def test_the_package_is_every_command():
    "`accelerate launch -m fsic_nb train` starts `fsic_train`; what settings.ini makes a script is a command here."
    p = module('train', '--config', 'no_such_cell', '--dry-run')
    assert p.returncode==2 and 'no_such_cell.toml: cannot be read' in p.stderr, p
    from fsic_nb.cli import COMMANDS
    scripts = re.search('^console_scripts = (.*)', (Path(__file__).parents[1]/'settings.ini').read_text(), re.M)[1]
    assert scripts.split()==[f'fsic_{n}=fsic_nb.{"tag" if n=="tag" else "cli"}:fsic_{n}' for n in COMMANDS]
    for wrong in ([], ['trian']):
        p = module(*wrong)
        assert p.returncode==2 and p.stderr.startswith('error: python -m fsic_nb') and 'use one of demo, train' in p.stderr
        assert p.stderr.count('\n')==1

@pytest.mark.parametrize('words, said', [('trian', 'use one of demo, train'), ('train --dry-run', '--dry-run needs --config'),
    ('train --config voc_1shot_lite0_paper --quick --size 96', 'leave out --method, --data, --quick, --size.'),
    ('prepare --data coco', '--data coco needs --root'), ('prepare', '--data is missing'),
    ('evaluate --method ,,', 'names nothing'), ('evaluate --shots 1.5', 'expected whole numbers from 0 on'), ('bench --stages nothing', 'nothing'),
    ('tag', 'error: '), ('tag predict no/such/tagger photos', 'no such file or folder')])
def test_commands_in_this_process(words, said, tmp_path, monkeypatch, capsys):
    "The word after the package chooses the command; a mistake is one sentence, before any work."
    from fsic_nb import cli
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'argv', ['fsic_nb', *words.split()])
    with pytest.raises(SystemExit) as e: cli.main()
    out, err = capsys.readouterr()
    assert e.value.code==2 and said in err and not out
    assert err.count('\n')==1 or 'usage' in err
    assert not list(tmp_path.iterdir())

def test_options_in_either_spelling():
    "A command line is read with hyphens or underscores; values are left as they are."
    from fsic_nb.cli import spell_options
    known = {'--max_images', '--out', '--x-y'}
    assert spell_options(['--max-images=3', 'a-b', '--out', '--x_y', '--dry-run'], known)==['--max_images=3', 'a-b', '--out', '--x-y', '--dry-run']

@settings(deadline=None)
@given(st.lists(st.integers(1, 9999), min_size=1))
def test_numbers_of_an_option(numbers):
    from fsic_nb.cli import parse_numbers
    assert parse_numbers(', '.join(map(str, numbers)), '--shots')==sorted(set(numbers))
