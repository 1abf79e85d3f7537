"""Bad input as data: what is given, what must be said. `test_bad_inputs` runs every row, tools/bad_input.py makes a table of them.

A row is (name, what, said, code). `what` is a command line (its words; exit code 2, one line on stderr, no work begun, nothing
written), or a function of a folder. It raises a `FsicError` (code None), or makes files and returns a command line.
`said` must be in the sentence.
"""
import contextlib, errno, functools, io, json, os, shutil, socket, sys, tempfile
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np, torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from fsic_nb import bench, core, data, features, files, pictures, prepare, runs, studies, tag
from fsic_nb.backbones import Transform, freeze_network
from fsic_nb.cli import main
from fsic_nb.configs import read_cell, to_cell
from fsic_nb.core import FsicError
from fsic_nb.examples import clean_tag, read_examples
from fsic_nb.model import PaperConfig
from fsic_nb.prepare import prepare_tree
from fsic_nb.protocols import Options, load_split, read_labels, read_supports
from fsic_nb.readers import read
from fsic_nb.space import load_space
from fsic_nb.studies import Comparison
from fsic_nb.tagger import Tagger
from fsic_nb.train import Schedule
from fsic_nb.words import load_words

PS = b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n'
WMF = b'\xd7\xcd\xc6\x9a\0\0' + b'\0\0\0\0\x08\0\x08\0' + b'\x60\0' + b'\0'*6 + b'\x01\0\x09\0\0\x03' + b'\0'*40
SPIDER_LIKE = b'\0'*1024
LABELS = dict(nothing='', spaces='   ', zero_width='\u200b\u200d', filler='\u3164', nul='ca\0t', newline='ca\nt', tab='ca\tt',
              escape='\x1b[2Jcat', bell='cat\a', csi='\x9b31mcat', override='\u202egpj.exe', isolate='cat\u2066x', mark='cat\u200fx',
              separator='cat\u2028x', byte_order='\ufeffcat', half_pair='cat\udcff', long='x'*10_000)
ODD = {'nothing': b'', 'text': b'no image', 'cat.jpg is PostScript': PS, 'cat.png is PostScript': PS, 'cat.wmf': WMF,
       'zeros': SPIDER_LIKE, 'html': b'<html>404</html>', 'a cut JPEG': b'\xff\xd8\xff\xe0\0\x10JFIF', 'a cut PNG': b'\x89PNG\r\n\x1a\n\0\0\0\rIHDR',
       'PCX of nothing': b'\x0a\x05\x01\x08' + b'\0'*124, 'FLI': b'\0\0\0\0\x11\xaf' + b'\0'*130, 'FPX or MIC': b'\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1' + b'\0'*600}


def write(name, content, f, folder):
    (folder/name).write_bytes(content)
    f(folder/name)

def open_odd(make, folder):
    "Make something that is no regular file, and open it as an image."
    path = folder/'x.jpg'
    make(path)
    pictures.open_rgb(path)

def bind(path):
    with socket.socket(socket.AF_UNIX) as s:
        os.chdir(path.parent)
        s.bind(path.name)

def sparse(path):
    with open(path, 'wb') as f: f.truncate(pictures.LARGEST_FILE+1)

def raw(ihdr, folder):
    "Write a PNG of a few bytes that says it is large."
    import struct, zlib
    def chunk(kind, b): return struct.pack('>I', len(b))+kind+b+struct.pack('>I', zlib.crc32(kind+b))
    text = chunk(b'zTXt', b'a\0\0'+zlib.compress(b'0'*200_000_000)) if ihdr=='text' else b''
    size = (8, 8) if text else ihdr
    (folder/'x.png').write_bytes(b'\x89PNG\r\n\x1a\n'+chunk(b'IHDR', struct.pack('>IIBBBBB', *size, 8, 2, 0, 0, 0))+text+chunk(b'IDAT', zlib.compress(b'\0'*99))+chunk(b'IEND', b''))
    pictures.open_rgb(folder/'x.png')

def image_set(name, folder=None): return data.ImageSet(['a.jpg'], [name], [[1]], 'toy')
def split(name, folder=None): return data.LabelSplit('toy', [], [], [name])
def home_of(text, folder):
    old = os.environ.get('FSIC_HOME')
    os.environ['FSIC_HOME'] = text
    try: core.home()
    finally: os.environ.pop('FSIC_HOME') if old is None else os.environ.update(FSIC_HOME=old)

CELL = dict(data='voc', split='voc', shots=1, method='paper', backbone='resnet50')
def cell(folder=None, **kw): return to_cell({'name': 'x', **CELL, **kw}, 'x.toml')
def never(f, *args, **kw): return lambda folder: f(*args, **kw)

IMAGES = [(f'image file, {k}', partial(write, 'cat.jpg', b, pictures.open_rgb), 'cat.jpg: cannot be read as an image', None) for k, b in ODD.items()]
IMAGES += [('image file, a pipe', partial(open_odd, os.mkfifo), 'it is no regular file', None),
           ('image file, a link to /dev/zero', partial(open_odd, lambda p: p.symlink_to('/dev/zero')), 'it is no regular file', None),
           ('image file, a link to a pipe', partial(open_odd, lambda p: (os.mkfifo(p.with_name('pipe')), p.symlink_to('pipe'))), 'it is no regular file', None),
           ('image file, a folder', partial(open_odd, Path.mkdir), 'x.jpg: cannot be read (Is a directory)', None),
           ('image file, a socket', partial(open_odd, bind), 'x.jpg: cannot be read (', None),
           ('image file, a link to itself', partial(open_odd, lambda p: p.symlink_to('x.jpg')), 'x.jpg: cannot be read (', None),
           ('image file, more than 512 MiB', partial(open_odd, sparse), 'it has more than 536,870,912 bytes', None),
           ('image file, NUL in its name', never(pictures.open_rgb, 'a\0.jpg'), 'cannot be read (embedded null byte)', None),
           ('image file, a line break in its name', never(pictures.open_rgb, 'a\n\x1b[2J.jpg'), r'a\n\x1b[2J.jpg: cannot be read', None),
           ('PNG of 60,000 x 60,000', partial(raw, (60_000, 60_000)), 'exceeds limit', None), ('PNG with 200 MB of text', partial(raw, 'text'), 'cannot be read as an image', None),
           ('an image of Pillow that is EPS', partial(write, 'cat.eps', PS, lambda p: pictures.open_rgb(Image.open(p, formats=['EPS']))), 'no image format that is known', None)]
NAMES = [(f'label of an image set, {k}', partial(image_set, v), "toy: the label '", None) for k, v in LABELS.items()]
NAMES += [(f'label of a split, {k}', partial(split, v), 'test', None) for k, v in LABELS.items()]
NAMES += [(f'tag, {k}', never(clean_tag, v), 'tag ', None) for k, v in LABELS.items()]
NAMES += [('path with NUL in an image set', never(data.ImageSet, ['a\0'], ['cat'], [[1]], 'toy'), 'no file can be called', None),
          ('split whose name is a number', never(data.LabelSplit, 3, [], [], ['cat']), 'has a text as its name', None),
          ('tags of examples with an escape code', never(read_examples, [np.zeros((9, 9, 3), np.uint8)], ['\x1b[2J']), 'tag ', None)]

HUGE = 10**40
NUMBERS = [(f'seed {s}', never(core.rng, s), 'seed ', None) for s in (-1, HUGE)]
NUMBERS += [(f'Schedule, {k}={v!r}', never(Schedule, **{k: v}), f'schedule.{k} ', None) for k, v in
            [('lr', float('nan')), ('lr', float('inf')), ('lr', -1.), ('lr', 1e38), ('lr_start', float('nan')), ('steps', 0), ('steps', 10**12), ('batch', 0), ('batch', 10**12), ('every', -1), ('warmup', -1)]]
NUMBERS += [(f'cell, {k} = {v!r}', partial(cell, **{k: v}), 'x.toml', None) for k, v in
            [('shots', 0), ('shots', 10**12), ('queries', 10**12), ('ways', 0), ('ways', 10**12), ('size', 10**9), ('seed', -1), ('seed', HUGE), ('episodes', 10**12), ('max_images', 10**12),
             ('published', float('nan')), ('published', float('inf')), ('shots', 1.5), ('shots', True), ('method', 3), ('schedule', dict(lr=float('nan'))), ('schedule', dict(lr=-1.)), ('schedule', dict(steps=10**12))]]
NUMBERS += [(f'Options, {k}={v!r}', never(Options, **{k: v}), f'--{k} ', None) for k, v in [('size', 10**9), ('size', 0), ('queries', 0), ('queries', 10**12), ('negatives', -1), ('negatives', 10**12)]]
NUMBERS += [(f'Comparison, {k}={v!r}', never(Comparison, **{k: v}), f'--{k} ', None) for k, v in [('shots', [-1]), ('shots', [10**12]), ('episodes', 0), ('episodes', 10**12), ('seed', HUGE)]]
NUMBERS += [('FSIC_HOME empty', partial(home_of, ''), 'FSIC_HOME is empty', None), ('FSIC_HOME of spaces', partial(home_of, '  '), 'FSIC_HOME is empty', None),
            ('workers 10**9', lambda folder: prepare_tree(image_set('cat'), folder/'m.jsonl', 10**9), '--workers 1000000000', None)]

def line(text, said): return (text, text.split(' '), said, 2)
COMMANDS = [line(f'{c} {o}=', f'{o} \'\': is empty') for c, options in dict(demo=('--out', '--data', '--root'), train=('--out', '--method', '--config', '--gpu'),
            evaluate=('--out', '--data', '--shots', '--baseline'), prepare=('--out', '--root'), finetune=('--out', '--data', '--weights', '--precision', '--batch-norm')).items() for o in options]
COMMANDS += [line(f'{c} --seed={s}', f'--seed {str(s)[:9]}') for c in ('demo', 'train', 'evaluate') for s in (-1, HUGE)]
COMMANDS += [line(f'{c} --{k}={v}', f'--{k} {v}: expected') for c in ('demo', 'train', 'evaluate') for k, v in [('size', 10**9), ('size', 0), ('queries', 10**12), ('negatives', -1)]]
COMMANDS += [line('evaluate --run=,,', "--run ',,': names nothing"), line('evaluate --method=,', "--method ',': names nothing"), line('evaluate --episodes=1000000000000', '--episodes 1000000000000: expected'),
             line('evaluate --episodes=0', '--episodes 0: expected'), line('evaluate --shots=99999', 'expected whole numbers'), line('bench --repeats=0', '--repeats 0: expected'), line('bench --repeats=1000000000', '--repeats 1000000000: expected'),
             line('finetune --data=voc --root=. --lr=nan', 'schedule.lr nan: expected'), line('finetune --data=voc --root=. --lr=1e38', 'schedule.lr 1e+38: expected'), line('finetune --data=voc --root=. --steps=1000000000000', 'schedule.steps'),
             line('finetune --data=voc --root=. --batch=1000000000000', 'schedule.batch'), line('finetune --data=voc --root=. --shots=1000000000000', 'shots 1000000000000'), line('finetune --data=voc --root=. --ways=1000000000000', 'ways 1000000000000'),
             line('finetune --data=voc --root=. --max-images=0', 'max_images 0'), line('tag examples photos --threshold=nan', '--threshold nan'), line('tag examples photos --precision=nan', '--precision nan'),
             line('tag examples photos --precision=2', '--precision 2'), line('tag examples photos --out=', "--out '': is empty"), line('tag examples photos --threshold=', "--threshold '': is empty"), line('tag fit examples --out=', "--out '': is empty")]

# every word that is expected as a number: argparse says it, after the usage
WORDS = [(f'{c} --{o}=x', [c, f'--{o}=x'], f'invalid {kind}', 2) for c, o, kind in
         [('demo', 'seed', 'int'), ('demo', 'size', 'int'), ('train', 'seed', 'int'), ('evaluate', 'episodes', 'int'), ('prepare', 'workers', 'int'), ('finetune', 'lr', 'float'), ('finetune', 'shots', 'int'), ('bench', 'repeats', 'int')]]


# --- folders that were made by the library, one file of which is harmed -------------------------------------------------------------

ABOUT = dict(method='paper', train=['a'], val=['b'], backbone='lite0', weights='w', data='scenes', seed=0, size=224, options={})
TAGGER = dict(form='fsic_nb tagger 1', params=Tagger().get_params(), words=['cat'], tags=['cat'], examples=[])
TEXTS = {'coco.json': json.dumps(dict(images=[dict(id=1, file_name='a.jpg')], categories=[dict(id=1, name='cat')], annotations=[dict(image_id=1, category_id=1)])),
         'table.csv': 'image,label\na.jpg,cat\n', 'split.json': '{"train": ["a"], "val": ["b"], "test": ["c", "d"]}', 'labels.json': '{"names": ["a", "b"], "train": {"1.jpg": [0], "2.jpg": [0, 1]}}',
         'supports.json': '{"0": {"a": ["1", "2"], "b": ["2"]}}', 'cell.toml': "data = 'voc'\nsplit = 'voc'\nshots = 1\nmethod = 'paper'\nbackbone = 'resnet50'\n",
         'words.txt': 'a 1 2 3\nb 2 3 4\n', 'm.jsonl': '{"manifest": 1, "name": "toy", "root": ".", "images": 1, "names": ["cat"], "info": {}}\n{"path": "a.jpg", "size": 1, "sha256": "0", "width": 1, "height": 1, "labels": ["cat"]}\n'}

@functools.cache
def good():
    "A folder of good things, made once: a run, a store, a tagger and small files."
    made = tempfile.TemporaryDirectory(prefix='bad-input-')
    folder = Path(made.name)
    good.made = made                                     # goes when Python ends
    torch.manual_seed(0)
    model = PaperConfig(6, 5, dim=8, heads=2).build()
    opt = torch.optim.Adam(model.parameters())
    run = folder/'run'
    for step in (1, 2):
        for w in model.parameters(): w.grad = torch.ones_like(w)
        opt.step()
        runs.save_checkpoint(folder/f'at {step}', model, opt, dict(step=step, best=None))
    runs.save_model(model, run/'best')
    shutil.copytree(folder/'at 2'/'last', run/'last')
    files.write_json(run/'run.json', dict(schedule=dict(steps=2)))
    files.write_json(run/'about.json', ABOUT)
    (folder/'images').mkdir()
    for i in range(3): Image.fromarray(core.rng('bad', i).integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder/'images'/f'{i}.png')
    tiny = freeze_network('tiny', torch.nn.Sequential(torch.nn.Conv2d(3, 8, 8, stride=8)), Transform(32), 'cpu')
    store = features.extract(sorted((folder/'images').iterdir()), tiny, 'fp32', root=folder/'store')
    shards = folder/'store'/'shards'
    (shards/store.meta['shards'][0][0]).rename(shards/'one')
    says(key='one')(shards/'one'/'meta.json')
    store.path.rename(folder/'store'/'all')
    says(shards=[['one', 3]])(folder/'store'/'all'/'meta.json')
    files.write_json(folder/'tagger'/'tagger.json', TAGGER)
    shutil.copy(core.shipped('models', 'photographs.safetensors'), folder/'tagger'/'space.safetensors')
    for name, text in TEXTS.items(): (folder/name).write_text(text)
    return folder

def resume(run):
    model = PaperConfig(6, 5, dim=8, heads=2).build()
    runs.resume_run(run, model, torch.optim.Adam(model.parameters()))

def every_row(store):
    store = features.FeatureStore(store/'all')
    return store[[0, 1, 2]], store.mean_of([0, 1, 2])

def score(run): return ['evaluate', f'--run={run.name}', '--method=protonet']

def hurt(name, harm, use, folder):
    "Copy a good thing, harm one of its files, use the thing."
    top = name.split('/')[0]
    (shutil.copytree if (good()/top).is_dir() else shutil.copy)(good()/top, folder/top)
    harm(folder/name)
    return use(folder/top)

def becomes(content): return lambda p: p.write_bytes(content if isinstance(content, bytes) else content.encode())
def says(**kw): return lambda p: p.write_text(json.dumps(json.loads(p.read_text())|kw))
def lacks(key): return lambda p: p.write_text(json.dumps({k: v for k, v in json.loads(p.read_text()).items() if k!=key}))
def cut(p): p.write_bytes(p.read_bytes()[:p.stat().st_size//2])
def bit(p):
    content = bytearray(p.read_bytes())
    content[-3] ^= 16
    p.write_bytes(content)
def numbers(change):
    def harm(p):
        with safe_open(p, 'pt') as f: about = f.metadata()
        save_file({k: change(v) for k, v in load_file(p).items()}, p, about)
    return harm
def array(change): return lambda p: np.save(p, change(np.load(p)))
def header(**kw):
    def harm(p):
        with safe_open(p, 'pt') as f: about = json.loads(f.metadata()['space'])
        save_file(load_file(p), p, dict(space=json.dumps(about|kw)))
    return harm
def huge(x): return torch.full_like(x, 1e38) if x.is_floating_point() else x
def nan(x): return torch.full_like(x, torch.nan) if x.is_floating_point() else x
def mixed(p): shutil.copy(good()/'at 1'/'last'/p.name, p)

DEEP = b'['*100_000
JSON = {'cut': cut, 'of nothing': becomes(''), 'not UTF-8': becomes(b'{"a": "\xff"}'), 'with NaN': becomes('{"method": NaN}'), 'a key twice': becomes('{"a": 1, "a": 2}'),
        'too deep': becomes(DEEP), 'a number of 5,000 digits': becomes('{"a": '+'9'*5000+'}'), 'a list': becomes('[]')}
FOLDERS = [(f'about.json, {k}', partial(hurt, 'run/about.json', harm, score), 'run/about.json: ', 2) for k, harm in JSON.items()]
FOLDERS += [(f'about.json, {k}', partial(hurt, 'run/about.json', harm, score), said, 2) for k, harm, said in
            [('no method', lacks('method'), 'missing required field method'), ('method is a number', says(method=3), 'run/about.json: expected str'), ('labels are a text', says(train='cat'), 'run/about.json: expected array'),
             ('size is a text', says(size='224'), 'run/about.json: expected int'), ('absent', Path.unlink, 'is no run')]]
FOLDERS += [(f'run.json, {k}', partial(hurt, 'run/run.json', harm, score), 'run/run.json: ', 2) for k, harm in [('cut', cut), ('no schedule', becomes('{}')), ('steps are a text', becomes('{"schedule": {"steps": "2"}}'))]]
FOLDERS += [(f'state.json, {k}', partial(hurt, 'run/last/state.json', harm, lambda run: resume(run)), 'state.json: ', None) for k, harm in
            [('cut', cut), ('negative step', says(step=-1)), ('step is a text', says(step='2')), ('another number', says(step=1))]]
FOLDERS += [(f'best/config.json, {k}', partial(hurt, 'run/best/config.json', harm, lambda run: runs.load_model(run/'best')), 'config.json: ', None) for k, harm in
            [('cut', cut), ('a list', becomes('[]')), ('unknown model', becomes('{"kind": "os.system"}'))]]
FOLDERS += [('best/config.json, one width is another', partial(hurt, 'run/best/config.json', says(dim=16), lambda run: runs.load_model(run/'best')), 'do not belong together', None)]
FOLDERS += [(f'best/weights, {k}', partial(hurt, 'run/best/weights.safetensors', harm, lambda run: runs.load_model(run/'best')), said, None) for k, harm, said in
            [('cut', cut, 'weights.safetensors: '), ('a pickle', becomes(b'\x80\x04cos\nsystem\n(S"touch x"\ntR.'), 'weights.safetensors: '), ('1e38', numbers(huge), 'weights.safetensors: '), ('NaN', numbers(nan), 'weights.safetensors: '),
             ('another dtype', numbers(lambda x: x.double()), 'do not belong together'), ('one bit', bit, 'is not the file that was written with the others'), ('absent', Path.unlink, 'weights.safetensors: ')]]
FOLDERS += [(f'checkpoint, {k}', partial(hurt, f'run/last/{name}', harm, resume), said, None) for k, name, harm, said in
            [('weights of another step', 'weights.safetensors', mixed, 'is not the file that was written with the others'), ('moments of another step', 'adam.safetensors', mixed, 'is not the file that was written with the others'),
             ('an emptied Adam file', 'adam.safetensors', lambda p: save_file({}, p), 'is not the file that was written with the others'), ('no Adam file', 'adam.safetensors', Path.unlink, 'adam.safetensors: '),
             ('weights of another dtype', 'weights.safetensors', numbers(lambda x: x.half()), 'is not the file that was written with the others'), ('a damaged seal', 'sums.json', cut, 'sums.json: not valid JSON')]]
ONE = 'shards/one/'
FOLDERS += [(f'store, {k}', partial(hurt, f'store/{name}', harm, every_row), said, None) for k, name, harm, said in
            [('one bit of a row', f'{ONE}locals.npy', bit, 'damaged'), ('one bit of a mean', f'{ONE}means.npy', bit, 'damaged'), ('cut rows', f'{ONE}locals.npy', cut, 'locals.npy: damaged'), ('32-bit rows', f'{ONE}locals.npy', array(lambda a: a.astype('f4')), 'locals.npy: damaged'),
             ('a row less', f'{ONE}means.npy', array(lambda a: a[1:]), 'means.npy: damaged'), ('objects', f'{ONE}sums.npy', lambda p: np.save(p, np.array([{}], dtype=object)), 'sums.npy: damaged'), ('meta.json is cut', 'all/meta.json', cut, 'meta.json: not valid JSON'),
             ('meta.json lacks the count', 'all/meta.json', lacks('count'), 'meta.json'), ('an image more than the shards have', 'all/meta.json', says(count=4), 'damaged (4 images in all, but 3 in its shards)'),
             ('a shard elsewhere', 'all/meta.json', says(shards=[['../../x', 3]]), 'all/meta.json'), ('a shard that is not there', 'all/meta.json', says(shards=[['two', 3]]), 'shards/two'),
             ("a shard in another's place", f'{ONE}meta.json', says(key='two'), 'it speaks of 3 images in two')]]

TRUST = [(f'run of somebody else, {k}', partial(hurt, 'run/about.json', says(**kw), score), said, 2) for k, kw, said in
         [('network of a hub', dict(backbone='hf-hub:x/y'), 'hf-hub:x/y'), ('a file of words', dict(options=dict(words='/etc/passwd')), 'words /etc/passwd'),
          ('a file as its split', dict(options=dict(split='/etc/passwd')), 'split /etc/passwd'), ('annotations elsewhere', dict(options=dict(annotations='/etc/passwd')), 'annotations /etc/passwd')]]
TRUST += [('tagger of somebody else, network of a hub', partial(hurt, 'tagger/space.safetensors', header(backbone='hf-hub:x/y'), Tagger.load), 'asks for the network hf-hub:x/y', None),
          ('the same, by a command', partial(hurt, 'tagger/space.safetensors', header(backbone='hf-hub:x/y'), lambda t: ['tag', 'evaluate', 'tagger', 'truth.csv']), 'asks for the network hf-hub:x/y', 2),
          ('space, network of a hub', partial(hurt, 'tagger/space.safetensors', header(backbone='hf-hub:x/y'), lambda t: load_space(t/'space.safetensors')), 'asks for the network hf-hub:x/y', None)]
TRUST += [(f'space, {k}', partial(hurt, 'tagger/space.safetensors', harm, lambda t: load_space(t/'space.safetensors')), 'space.safetensors: ', None) for k, harm in
          [('cut', cut), ('NaN', numbers(nan)), ('size of 10**9', header(size=10**9)), ('size is a text', header(size='336')), ('prior of 1e38', header(prior={k: [1e38]*4 for k in ('none', 'word')}))]]
TRUST += [(f'tagger.json, {k}', partial(hurt, 'tagger/tagger.json', harm, Tagger.load), 'tagger', None) for k, harm in
          [('cut', cut), ('a list', becomes('[]')), ('another form', says(form='x')), ('tag with an escape code', says(tags=['\x1b[2J'], words=['\x1b[2J'])), ('tag that no example has', says(tags=['dog'])), ('parameter it does not know', says(params={}))]]


# --- what is no file ----------------------------------------------------------------------------------------------------------------

def pipe(p):
    p.unlink()
    os.mkfifo(p)
def link(to):
    def make(p):
        p.unlink()
        p.symlink_to(to or p.name)
    return make
def folder(p):
    p.unlink()
    p.mkdir()
ODD_FILES = {'a pipe': pipe, 'a link to /dev/zero': link('/dev/zero'), 'a folder': folder, 'a link to itself': link(''), 'absent': Path.unlink}
READ = {'COCO': ('coco.json', lambda p: read('coco', p.parent, annotations=str(p), files='unchecked')), 'table': ('table.csv', lambda p: read('csv', p, files='unchecked')), 'manifest': ('m.jsonl', lambda p: read('manifest', p)),
        'split': ('split.json', load_split), 'list of labels': ('labels.json', read_labels), 'list of supports': ('supports.json', read_supports), 'cell': ('cell.toml', read_cell), 'words': ('words.txt', load_words),
        'examples': ('table.csv', read_examples), 'tagger': ('tagger/tagger.json', Tagger.load), 'space': ('tagger/space.safetensors', lambda t: load_space(t/'space.safetensors')), 'store': ('store/all/meta.json', every_row),
        'rows of a store': ('store/shards/one/locals.npy', every_row), 'weights': ('run/best/weights.safetensors', lambda run: runs.load_model(run/'best')), 'state of a run': ('run/last/state.json', resume)}
NO_FILES = [(f'{k}, {odd}', partial(hurt, name, make, use), Path(name).stem if 'tagger.json' not in name else 'tagger', None) for k, (name, use) in READ.items() for odd, make in ODD_FILES.items()]
LISTS = [(f'{k}, {odd}', partial(hurt, name, harm, use), name, None) for k, (name, use) in READ.items() if k in ('COCO', 'split', 'list of labels', 'list of supports', 'cell', 'manifest', 'table')
         for odd, harm in [('cut', cut), ('of nothing', becomes('')), ('bytes', becomes(b'\xff\xfe\0\xd8'*50)), ('too deep', becomes(DEEP))]]


# --- where something is to be written ---------------------------------------------------------------------------------------------------

def place(words, where, folder):
    "Something is in the way of what a command would write."
    (folder/'notes.txt').write_text('mine')
    os.mkfifo(folder/'pipe')
    return [w.replace('OUT', where) for w in words.split(' ')]

OUTS = {'demo': 'demo --quick --out=OUT', 'train': 'train --out=OUT', 'train a cell': 'train --config=voc_1shot_resnet101_paper --root=. --out=OUT', 'evaluate': 'evaluate --method=protonet --out=OUT', 'prepare': 'prepare --data=folder --root=. --out=OUT',
        'prepare --show': 'prepare --data=folder --root=. --show=OUT', 'finetune': 'finetune --data=voc --root=. --out=OUT', 'bench': 'bench --quick --out=OUT', 'tag': 'tag examples photos --out=OUT', 'tag --report': 'tag examples photos --report=OUT',
        'tag fit': 'tag fit examples --out=OUT', 'tag predict': 'tag predict tagger photos --out=OUT', 'tag explain': 'tag explain tagger a.jpg --tag=cat --out=OUT'}
WHERE = {'in a file': 'notes.txt/x', 'a pipe': 'pipe', 'where nothing can be made': '/proc/x/y', 'a name of 300 letters': 'x'*300, 'NUL in its name': 'a\0b'}
PLACES = [(f'{k}, out is {at}', partial(place, words, where), where[:9].replace('\0', r'\x00'), 2) for k, words in OUTS.items() for at, where in WHERE.items()]

def full(use, folder):
    "The disk is full as soon as something is to reach it."
    with mock.patch.object(files, '_sync', side_effect=OSError(errno.ENOSPC, 'No space left on device')): use(folder)
def no_room(folder):
    with mock.patch.object(shutil, 'disk_usage', return_value=mock.Mock(free=10)):
        features.extract(sorted((good()/'images').iterdir()), freeze_network('tiny', torch.nn.Sequential(torch.nn.Conv2d(3, 8, 8, stride=8)), Transform(32), 'cpu'), 'fp32', root=folder)
def busy(folder):
    with files.lock(folder/'m.jsonl'): prepare_tree(image_set('cat'), folder/'m.jsonl', 1)
def other_run(folder):
    runs.begin_run(folder, dict(seed=0))
    runs.begin_run(folder, dict(seed=1))
PLACES += [('a full disk, results', partial(full, lambda f: files.write_json(f/'results.json', [])), 'results.json: cannot be written (the disk is full)', None),
           ('a full disk, weights', partial(full, lambda f: runs.save_model(PaperConfig(6, 5, dim=8, heads=2).build(), f/'best')), 'cannot be written (the disk is full)', None), ('a full disk, features', no_room, 'free some space', None),
           ('two commands write a manifest', busy, 'another run is writing this manifest', None), ('two trainings, one folder', other_run, 'holds another run (seed differs)', None),
           ('results where a pipe is', lambda f: (os.mkfifo(f/'p'), files.write_json(f/'p', [])), 'is a device or a pipe', None)]

KINDS = {'image files': IMAGES, 'labels and tags': NAMES, 'numbers': NUMBERS, 'options': COMMANDS, 'no numbers': WORDS, 'run folders and stores': FOLDERS, 'made by somebody else': TRUST, 'no regular file': NO_FILES, 'lists and tables': LISTS,
         'places to write': PLACES}
BAD = [(kind, *row) for kind, rows in KINDS.items() for row in rows]


# --- what is said ---------------------------------------------------------------------------------------------------------------------

WORK = [(studies, 'prepare'), (studies, 'read_images'), (studies, 'choose_backbone'), (prepare, 'check_image'), (bench, 'machine_peaks'), (tag, 'fit_examples')]

def listing(folder): return sorted((str(p), p.lstat().st_size, p.lstat().st_mtime_ns) for p in folder.rglob('*') if p.suffix!='.lock')

def run(words, folder):
    "What a command says on stderr, and its exit code. It must not begin to work, and write nothing."
    before = listing(folder)
    err = io.StringIO()
    with contextlib.ExitStack() as s:
        for where, name in WORK: s.enter_context(mock.patch.object(where, name, side_effect=AssertionError(f'{name}: work was begun')))
        s.enter_context(mock.patch.object(sys, 'argv', ['fsic_nb', *words]))
        s.enter_context(contextlib.redirect_stderr(err))
        s.enter_context(contextlib.redirect_stdout(io.StringIO()))
        try: main()
        except SystemExit as e: code = e.code
        else: raise AssertionError('nothing is said')
    assert listing(folder)==before, 'something was written'
    return err.getvalue(), code

def said_by(what, folder):
    "What a row says, and its exit code; the whole stderr of a command."
    homes = {} if isinstance(what, partial) and what.func is home_of else dict(FSIC_HOME=str(good()/'home'))
    with contextlib.chdir(folder), mock.patch.dict(os.environ, homes):
        try: words = what(folder) if callable(what) else what
        except FsicError as e: return str(e), None
        if not isinstance(words, list): raise AssertionError('was accepted')
        return run(words, folder)

def shown(text, folder):
    "The last line, without the folders of this computer."
    text = text.rstrip('\n').split('\n')[-1]
    for p, name in ((folder, 'HERE'), (good(), 'GOOD'), (core.shipped('configs').parent.parent, 'LIBRARY')): text = text.replace(str(p), name)
    return text.replace('x'*300, 'xxx…')

def record(kind, name, what, folder):
    "A row of the table."
    text, code = said_by(what, folder)
    return dict(kind=kind, input=name, said=shown(text, folder), code=code or '')
