"Cells as files: what is refused, what a cell costs, and two tiny cells from their file to their number."
import contextlib, io, json, os, re, string, subprocess, sys
from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np, pytest, torch
from hypothesis import given, settings, strategies as st
from PIL import Image
from torch import nn

from fsic_nb.backbones import build_network, feature_map
from fsic_nb.configs import CELLS, Cell, cell_of, read_cell, to_cell, to_toml, tuned_config
from fsic_nb.costs import count_labels, dry_run, footprint, head_parameters, memory, passes, say_cost
from fsic_nb.core import FsicError, rng
from fsic_nb.files import read_json, write_json
from fsic_nb.data import LabelSplit
from fsic_nb.protocols import Options
from fsic_nb.recipes import RECIPES, head_config
from fsic_nb.train import PAPER_SCHEDULE, Schedule

root = Path(__file__).resolve().parents[1]
shipped = sorted((root/'data'/'configs').glob('*.toml'))
silent = lambda line: None


# --- files ---------------------------------------------------------------------------------------------------------------

def test_the_files_are_what_the_table_says():
    assert {p.stem: p.read_text(encoding='utf-8') for p in shipped}=={n: to_toml(c) for n,c in CELLS.items()}
    assert {p.stem: read_cell(p) for p in shipped}==CELLS

def test_every_cell_of_the_paper_is_there_and_numbers_have_a_source():
    paper = {(c.data, c.shots): c.published for c in CELLS.values() if c.method=='paper' and c.mode=='finetuned'}
    assert paper=={('voc', 1): 62.9, ('voc', 5): 71.7, ('coco', 1): 64.2, ('coco', 5): 73.9, **{(d, k): None for d in ('nuswide', 'imaterialist') for k in (1, 5)}}
    assert all(bool(c.published)==('arXiv 2412.13732' in c.source) for c in CELLS.values())
    assert not [n for n,c in CELLS.items() if c.published and c.method!='paper']

good = dict(name='x', data='voc', split='voc', shots=1, method='paper', backbone='resnet50')
KEYS = [f.name for f in fields(Cell)]

@settings(deadline=None, max_examples=100)
@given(st.sampled_from([k for k in KEYS if len(k)>4]), st.data())
def test_a_misspelt_key_is_refused_with_the_right_one(key, data):
    at = data.draw(st.integers(0, len(key)-1))
    wrong = key[:at]+data.draw(st.sampled_from(string.ascii_lowercase))+key[at+1:]
    if wrong in KEYS: return
    with pytest.raises(FsicError) as e: to_cell({**good, wrong: 1}, 'folder/mine.toml')
    assert str(e.value).startswith(f'folder/mine.toml: no key is called {wrong!r}') and key in str(e.value)

WRONG = {str: 1, int: True, bool: 0, float: 'x'}

@pytest.mark.parametrize('key', [k for k in KEYS if k!='schedule'])
def test_a_value_of_another_type_names_file_and_key(key):
    t = next(f.type for f in fields(Cell) if f.name==key)
    with pytest.raises(FsicError, match=f'mine.toml: {key} is '): to_cell({**good, key: WRONG.get(t, 'x')}, 'mine.toml')

@pytest.mark.parametrize('key', ['name', 'data', 'split', 'shots', 'method', 'backbone'])
def test_what_is_needed_is_missed(key):
    with pytest.raises(FsicError, match=f'{key} is missing'): to_cell({k: v for k,v in good.items() if k!=key}, 'x')

@pytest.mark.parametrize('change,says', [
    (dict(schedule=dict(stepz=1)), 'x.toml, schedule: no key is called .stepz.; did you mean steps'), (dict(schedule=dict(steps=1.5)), 'schedule: steps is 1.5; expected int'),
    (dict(schedule=dict(steps=0)), 'schedule.steps 0: expected 1'), (dict(schedule='quick'), 'a finetuned cell takes .paper. or a table'), (dict(size=8), 'size 8: expected 32'),
    (dict(seed=-1), 'seed -1:'), (dict(mode='frozen', schedule='recipe', precision='bf16'), 'a frozen cell is trained by its recipe'), (dict(source='me'), 'published and source belong together'),
    (dict(protocol='lenient'), 'known are strict, masked'), (dict(split='frequency_1_2'), 'is none of voc; use voc, voc_14_6'), (dict(backbone='resnet5O'), 'did you mean .*resnet50')])
def test_what_cannot_be_is_said(change, says):
    with pytest.raises(FsicError, match=says): to_cell({**good, **change}, 'x.toml')

OPTIONS = dict(data='voc', split='', backbone='resnet50', weights='default', method='paper', shots=1, queries=4, ways=None, size=224, batch_norm='frozen',
               max_images=64, precision='fp32', augment=0, steps=20_000, lr=1e-4, batch=4, every=1_000, words='glove-50', seed=0)

def test_a_cell_of_options():
    "What `fsic_finetune` is told is a cell like that of a file, checked alike."
    cell = cell_of(OPTIONS)
    assert (cell.name, cell.split, cell.mode, cell.steps, cell.augment)==('command line', 'voc', 'finetuned', PAPER_SCHEDULE, False)
    short = cell_of({**OPTIONS, 'steps': 40, 'lr': 1e-7, 'split': 'frequency_2_2_2', 'augment': True, 'ways': 3})
    assert (short.steps.warmup, short.steps.lr_start, short.split, short.augment, short.ways)==(2, 1e-7, 'frequency_2_2_2', True, 3)
    for wrong, says in ((dict(precision='fp8'), 'fsic_finetune: precision is .fp8.'), (dict(max_images=0), 'max_images 0: expected 1'), (dict(steps=0), 'schedule.steps 0:'),
                        (dict(method='bcr'), 'fsic_finetune: method is .bcr.')):
        with pytest.raises(FsicError, match=says): cell_of({**OPTIONS, **wrong})

@settings(deadline=None, max_examples=60)
@given(st.builds(replace, st.just(to_cell(good, 'x')), shots=st.integers(1, 30), queries=st.integers(1, 30), max_images=st.integers(1, 999), augment=st.booleans(),
                 precision=st.sampled_from(['fp32', 'bf16', 'fp16']), words=st.text(st.characters(exclude_categories=['Cs', 'Cc'], exclude_characters='\x7f'), min_size=1, max_size=20),
                 schedule=st.just('paper') | st.builds(Schedule, steps=st.integers(1, 10**6), lr=st.floats(1e-9, .5), decay=st.booleans())))
def test_a_cell_is_read_back(tmp_path_factory, cell):
    p = tmp_path_factory.mktemp('cell')/'x.toml'
    p.write_text(to_toml(cell), encoding='utf-8')
    assert read_cell(p)==cell and to_cell(json.loads(json.dumps(asdict(cell))), 'about.json')==cell


# --- cost ----------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('name', ['resnet50', 'test_resnet'])
def test_operations_and_parameters_are_what_the_layers_say(name):
    net,seen = build_network(name, False, 64)[0].eval(),[]
    for m in net.modules():
        if isinstance(m, nn.Conv2d): m.register_forward_hook(lambda m, x, y: seen.append(2*y.numel()*m.weight[0].numel()))
    with torch.no_grad(): feature_map(net, torch.zeros(1, 3, 64, 64))
    f = footprint(name, 64)
    assert f.flops==sum(seen)
    last = dict(net.named_modules())['fc']
    assert f.parameters==sum(p.numel() for p in net.parameters())-sum(p.numel() for p in last.parameters())

@pytest.mark.parametrize('name', list(CELLS))
def test_a_dry_run_needs_no_data(name):
    cell = CELLS[name]
    d = dry_run(cell, gpu='H100', here=dict(device='cpu', forward=.1, training=.4))
    text = '\n'.join(say_cost(cell, d))
    assert 'official size, an upper bound' in text and 'nothing was trained' in text and text.count('an estimate')>=2 and 'just measured on this cpu' in text
    assert json.loads(json.dumps(d))==d
    if cell.mode=='finetuned':
        assert d['per_episode']==d['labels']['train']*(cell.shots+4) and d['training']==80_000*d['per_episode'] and 'GPU memory  about' in text
        with torch.device('meta'): head = tuned_config(cell, 300).head.build()
        assert d['parameters']['head']==sum(p.numel() for p in head.parameters())

def test_gpus():
    "A name that is not known and a precision that a GPU lacks are refused; hours go by the peak of the precision."
    cell = CELLS['voc_1shot_resnet101_paper']
    with pytest.raises(FsicError, match='--gpu A10: did you mean A100'): dry_run(cell, gpu='A10')
    with pytest.raises(FsicError, match='--gpu V100: it does not compute in bf16; let precision be fp16'): dry_run(replace(cell, precision='bf16'), gpu='V100')
    for precision in ('fp32', 'fp16'):
        c = replace(cell, precision=precision)
        a,v = (dry_run(c, gpu=g)['hours_peak'] for g in ('A100', 'V100'))
        assert v/a==pytest.approx(156/15.7 if precision=='fp32' else 312/125)
    assert dry_run(cell, gpu='H100')['hours_rate'] is None

def test_a_method_uses_the_classifier_that_the_frozen_network_has():
    "What a dry run counts is what is trained: DINOv2 comes without a classifier."
    for name,classes in (('lite0', 1000), ('resnet50', 1000), ('test_resnet', 1000), ('vit_small_patch14_dinov2', 0)):
        cell = to_cell({**good, 'method': 'refined', 'backbone': name, 'mode': 'frozen', 'schedule': 'recipe', 'words': 'glove-50'}, 'x')
        f = footprint(name)
        assert f.classes==classes
        assert head_parameters(cell)==sum(p.numel() for p in head_config('refined', f.channels, 50, classes).build().parameters())

def test_more_of_anything_costs_more():
    cell = CELLS['voc_1shot_resnet101_paper']
    a = dry_run(cell)
    for more in (dict(train_shots=2), dict(max_images=8), dict(size=256), dict(schedule=replace(PAPER_SCHEDULE, steps=30_000))):
        assert dry_run(replace(cell, **more))['flops']>a['flops'], more
    assert dry_run(replace(cell, precision='bf16'))['hours_rate']<a['hours_rate'] and memory(replace(cell, max_images=8), 40)<memory(cell, 40)


# --- two tiny cells, from file to number ---------------------------------------------------------------------------------

NAMES = ['person', 'dog', 'cat', 'car', 'boat', 'bird', 'horse']

def write_tree(folder, each=11):
    "A COCO tree of 64-pixel pictures, one coloured square a label; and its split."
    own = [[c] for c in range(7) for _ in range(each)]+[[0, 1], [2, 1], [5, 6]]
    for sub in ('annotations', 'images'): (folder/sub).mkdir(parents=True)
    for i,cs in enumerate(own):
        a = rng('tiny', i).integers(0, 60, (64, 64, 3)).astype(np.uint8)
        for c in cs: a[8*c:8*c+16,8*c:8*c+16] = np.eye(3)[c%3]*(255-20*c)
        Image.fromarray(a).save(folder/'images'/f'{i:012d}.jpg')
    write_json(folder/'annotations'/'instances_tiny.json', dict(images=[dict(id=i, file_name=f'{i:012d}.jpg') for i in range(len(own))],
        categories=[dict(id=c+1, name=n) for c,n in enumerate(NAMES)], annotations=[dict(id=100*i+c, image_id=i, category_id=c+1, iscrowd=0) for i,cs in enumerate(own) for c in cs]))
    LabelSplit('tiny', NAMES[:3], NAMES[3:5], NAMES[5:]).to_json(folder/'split.json')
    return folder

@pytest.fixture(scope='module')
def tree(tmp_path_factory):
    base = tmp_path_factory.mktemp('cell')
    old,os.environ['FSIC_HOME'] = os.environ.get('FSIC_HOME'),str(base/'home')
    yield write_tree(base/'coco')
    os.environ.pop('FSIC_HOME') if old is None else os.environ.update(FSIC_HOME=old)

def write_cell(tree, name, **change):
    "A fine-tuned cell of two steps with a very small network."
    cell = to_cell({**dict(name=name, data='coco', split=str(tree/'split.json'), shots=1, method='wagp', backbone='test_resnet', weights='none', words='glove-50', size=48,
                           max_images=8, episodes=3, schedule=dict(steps=2, every=1, warmup=1, lr=1e-3, batch=1)), **change}, name)
    (p := tree.parent/f'{name}.toml').write_text(to_toml(cell), encoding='utf-8')
    return p

def command(name, *args):
    p = subprocess.run([Path(sys.executable).parent/f'fsic_{name}', *map(str, args)], capture_output=True, text=True, timeout=300, env=dict(os.environ, FSIC_PROGRESS='0'))
    assert p.returncode==0, p.stderr
    return p.stdout

@pytest.fixture(scope='module')
def run(tree):
    "The tiny cell, by the console script."
    out = command('train', '--config', write_cell(tree, 'tiny'), '--root', tree, '--out', tree.parent/'run')
    assert 'wagp on test_resnet, end to end: 2 steps of 1 x 15 images' in out and 'mAP' in out
    return tree.parent/'run'

def no_clock(rows): return [{k: v for k,v in r.items() if k!='seconds'} for r in rows]

def test_a_fine_tuned_cell_from_its_file_to_its_number(run, tree):
    about,rows = read_json(run/'about.json'),read_json(run/'results.json')
    assert to_cell(about['cell'], 'about.json')==read_cell(tree.parent/'tiny.toml')
    assert (about['train'], about['val'], about['backbone'])==(NAMES[:3], NAMES[3:5], 'test_resnet-tuned')
    assert [(r['method'], r['shots'], r['episodes'], r['protocol'], r['split']) for r in rows]==[(m, 1, 3, 'strict', 'tiny') for m in ('simpleshot', 'wagp')]
    assert rows[1]['run']==str(run) and rows[1]['seen']==0 and all(0<r['map']<=100 for r in rows)

def test_scored_again_the_network_of_the_run_makes_the_features(run, tree, monkeypatch):
    from fsic_nb import experiment
    from fsic_nb.studies import Comparison, compare
    from fsic_nb.finetune import ImageLoader
    from fsic_nb.readers import read
    from fsic_nb.runs import load_model
    asked, extract = [], experiment.extract
    monkeypatch.setattr(experiment, 'extract', lambda images, bb: asked.append(bb) or extract(images, bb))
    rows = compare([run], [], 'coco', str(tree), Comparison([1], 3), tree.parent/'asked.json', silent)
    assert no_clock(rows)==no_clock(read_json(run/'results.json'))                      # another process made these
    model = load_model(run/'best')
    x = ImageLoader(read('coco', tree), model.backbone.transform)(range(6))
    with torch.no_grad(): assert torch.allclose(asked[0](x), model.backbone(x), atol=1e-4)

def test_the_same_command_again_trains_nothing_and_another_cell_is_refused(run, tree):
    from fsic_nb.studies import run_cell
    before,rows = (run/'best'/'weights.safetensors').read_bytes(),read_json(run/'results.json')
    again = run_cell(tree.parent/'tiny.toml', str(tree), run, say=silent)
    assert (run/'best'/'weights.safetensors').read_bytes()==before and no_clock(again)==no_clock(rows)
    with pytest.raises(FsicError, match='holds another run'): run_cell(write_cell(tree, 'other', max_images=9), str(tree), run, say=silent)
    with pytest.raises(FsicError, match='holds another run'): run_cell(tree.parent/'tiny.toml', str(tree), run, seed=1, say=silent)

def test_passes_are_what_the_network_sees(tree, monkeypatch):
    "Pictures forward and backward, counted while it trains."
    from fsic_nb.studies import tune
    from fsic_nb.finetune import LocalFeatures
    from fsic_nb.readers import read
    seen,old = {True: 0, False: 0},LocalFeatures.forward
    def forward(self, x): seen[torch.is_grad_enabled()] += len(x); return old(self, x)
    monkeypatch.setattr(LocalFeatures, 'forward', forward)
    for most,validated in ((8, NAMES[3:5]), (9, []), (99, [])):
        LabelSplit('tiny', NAMES[:3], validated, NAMES[5:]).to_json(split := tree.parent/f'split{most}.json')
        cell = read_cell(write_cell(tree, f'count{most}', max_images=most, split=str(split)))
        images = read('coco', tree)
        said = passes(cell, count_labels(cell, images), len(images))
        seen.update({True: 0, False: 0})
        tune(cell, str(tree), tree.parent/f'count{most}', 0, silent)
        assert seen[True]==said['backward']==said['training']==2*15
        rest = said['forward']-said['backward']-len(images)                            # without the extraction
        assert 2*15<seen[False]<=rest if validated else seen[False]==rest==(2*15 if most<15 else 0)

def test_a_fine_tuned_run_is_scored_alone(run, tree):
    from fsic_nb.runs import read_run
    from fsic_nb.studies import Comparison, check_alone, compare
    from shutil import copytree
    other = copytree(run, tree.parent/'copy')
    kw = dict(data='coco', root=str(tree), say=silent)
    with pytest.raises(FsicError, match='score it alone'): compare([run, other], how=Comparison([1], 3), out=tree.parent/'no.json', **kw)
    with pytest.raises(FsicError, match='refined: would be trained on other features'): check_alone([read_run(run)], ['refined'])
    assert not (tree.parent/'no.json').exists()
    LabelSplit('wide', [], [], NAMES[3:]).to_json(tree.parent/'wide.json')
    how = Comparison([1], 3, options=Options(split=str(tree.parent/'wide.json'), protocol='masked'))
    rows = compare([run], ['protonet'], how=how, out=tree.parent/'wide.r.json', **kw)
    assert [(r['method'], r['protocol'], r.get('seen')) for r in rows]==[('simpleshot', 'masked', None), ('protonet', 'masked', None), ('wagp', 'masked', 2)]

def test_a_frozen_cell_goes_by_its_recipe(tree, monkeypatch):
    from fsic_nb.studies import Comparison, compare, run_cell
    monkeypatch.setitem(RECIPES, 'laso', dict(kinds=[dict(shots=1)], schedule=dict(steps=3, warmup=1), quick=dict(steps=1)))
    p = write_cell(tree, 'frozen', method='laso', mode='frozen', backbone='lite0', schedule='recipe', size=224, weights='default', max_images=64)
    rows = run_cell(p, str(tree), tree.parent/'frozen', say=silent)
    assert [(r['method'], r['shots'], r['split']) for r in rows]==[('simpleshot', 1, 'tiny'), ('laso', 1, 'tiny')] and rows==read_json(tree.parent/'frozen'/'results.json')
    assert read_json(tree.parent/'frozen'/'about.json')['cell']['mode']=='frozen'
    assert no_clock(compare([tree.parent/'frozen'], [], 'coco', str(tree), Comparison([1], 3), tree.parent/'f.json', silent))==no_clock(rows)

def test_options_are_what_the_runs_say(run, tree):
    "As asked, as the run says, as the data set suggests; what cannot be meant is refused."
    from fsic_nb.runs import read_run
    from fsic_nb.studies import choose_options
    split = str(tree/'split.json')
    asked = Options(split='x', protocol='masked', files='present')
    assert choose_options([], 'coco')==Options() and choose_options([], 'voc', asked)==asked
    for k in ('split', 'protocol', 'files', 'annotations', 'difficult', 'pictures'):
        with pytest.raises(FsicError, match=f'--{k}: the scenes are built with'): choose_options([], 'scenes', Options(**{k: 'x'}))
    frozen = dict(path=run, own=True, cell=dict(read_run(run)['cell'], mode='frozen'), backbone='test_resnet', size=48)
    here = choose_options([frozen], 'coco', Options(protocol='masked'))
    own = dict(backbone='test_resnet', size=48, words='glove-50', queries=4)
    assert here==Options(split=split, protocol='masked', **own)
    assert choose_options([frozen], 'voc')==Options(**own)                       # another data set has its own
    assert choose_options([read_run(run)], 'coco').backbone.name=='test_resnet-tuned'
    with pytest.raises(FsicError, match='a fine-tuned run has a network of its own'): choose_options([read_run(run)], 'coco', Options(size=96))

def test_a_dry_run_by_the_console_script(tree):
    p,before = write_cell(tree, 'bill'),sorted(tree.parent.iterdir())
    out = command('train', '--config', p, '--dry-run', '--root', tree, '--gpu', 'V100', '--out', tree.parent/'not')
    assert '80 (counted)' in out and 'V100' in out and 'just measured on this' in out and '15 images an episode (3 labels x (1 + 4))' in out
    assert sorted(tree.parent.iterdir())==before


# --- other data sets -----------------------------------------------------------------------------------------------------

def test_nuswide_and_pictures_of_ones_own_are_scored(tree, tmp_path):
    from fsic_nb.studies import Comparison, compare
    from fsic_nb.protocols import SPLITS
    from test_readers import write_nus
    test = SPLITS['nuswide_65_16'].labels('test')
    write_nus(tmp_path/'nus', [{n} | ({'sky'} if i==0 else set()) for n in test for i in range(5)])
    for i, f in enumerate(sorted((tmp_path/'nus'/'Flickr').rglob('*.jpg'))): Image.fromarray(rng('nus', i).integers(0, 255, (32, 32, 3)).astype(np.uint8)).save(f)
    rows = compare([], ['protonet'], 'nuswide', str(tmp_path/'nus'), Comparison([1], 2, options=Options(backbone='lite0')), tmp_path/'r.json', silent)
    assert [(r['method'], r['data'], r['split'], r['protocol']) for r in rows]==[(m, 'nuswide', 'nuswide_65_16', 'masked') for m in ('simpleshot', 'protonet')]
    (tmp_path/'labels.csv').write_text(''.join(f'{i:012d}.jpg,{NAMES[i//11]}\n' for i in (0, 11, 22, *range(33, 77))))
    for f in (tree/'images').glob('*.jpg'): (tmp_path/f.name).symlink_to(f)
    rows = compare([], ['protonet'], 'csv', str(tmp_path), Comparison([1], 2, options=Options(split=str(tree/'split.json'), backbone='lite0')), tmp_path/'r.json', silent)
    assert [(r['split'], r['protocol']) for r in rows]==[('tiny', 'strict')]*2
