"""Every reader is given damaged, odd and hostile files: it succeeds or says one sentence, does not hang, and writes nothing.

Harm is a function of a number: FSIC_FUZZ=200 tries 200 numbers of each file (a few in the tests), FSIC_FUZZ_SEED other numbers.
"""
import contextlib, functools, gzip, io, json, os, resource, shutil, signal, traceback
from dataclasses import dataclass
from pathlib import Path

import numpy as np, pytest, torch
from fsic_nb import space as spaces, studies, tagging
from fsic_nb.configs import read_cell, to_toml, CELLS
from fsic_nb.core import FsicError, rng
from fsic_nb.data import ImageSet, LabelSplit
from fsic_nb.examples import read_examples
from fsic_nb.features import FeatureStore, extract
from fsic_nb.files import write_json
from fsic_nb.model import PaperConfig
from fsic_nb.prepare import prepare_tree
from fsic_nb.protocols import FixedEpisodes, load_split, read_labels, read_supports
from fsic_nb.apply import Block, read_block, to_two_bytes, write_block
from fsic_nb.paired import Part, write_parts
from fsic_nb.readers import NUSWIDE_NAMES, read
from fsic_nb.runs import begin_run, load_model, open_log, read_run, resume_run
from fsic_nb.scenes import make_scenes
from fsic_nb.space import load_space
from fsic_nb.spread import merge_folder
from fsic_nb.tagger import Tagger
from fsic_nb.tagging import Shortlist, TagForm, explain_shortlist, tag_photos
from fsic_nb.train import Plan, Schedule, describe_training, train
from fsic_nb.words import load_words
from dialects import DIALECTS, Row
from test_kill import exp, pictures, tiny       # fixtures
from test_tagging import Fake, make

pytestmark = pytest.mark.skipif(os.name=='nt', reason='no pipes and no alarms')
TRIES = int(os.environ.get('FSIC_FUZZ', 5))
SEED = int(os.environ.get('FSIC_FUZZ_SEED', 0))


# --- harm ------------------------------------------------------------------------------------------------------------------

ODD = [None, True, -1, 0, 1, 10**40, 1e308, -1e308, .5, float('nan'), float('inf'), '', ' ', '\0', 'a\nb', '\u202ex', '\ud800', 'x'*5000,
       '../../etc/passwd', '/etc/passwd', 'hf-hub:a/b', [], {}, [[]], [None], [[[[1]]]], {'': {}}, ['a', 'a'], [1, 2], [0]*1000, {'a': 1}]

def nodes(d, at=()):
    "All places in a JSON value."
    yield at
    pairs = d.items() if isinstance(d, dict) else enumerate(d) if isinstance(d, list) else ()
    for k, v in list(pairs)[:30]: yield from nodes(v, (*at, k))

def replaced(d, r):
    "Replace, remove, repeat or rename a value."
    places = list(nodes(d))
    at = places[int(r.integers(len(places)))]
    if not at: return ODD[int(r.integers(len(ODD)))]
    inner = d
    for k in at[:-1]: inner = inner[k]
    how = int(r.integers(6))
    if how==0: del inner[at[-1]]
    elif how==1 and isinstance(inner, list): inner.append(inner[at[-1]])
    elif how==1: inner[f'{at[-1]} '] = inner.pop(at[-1])
    else: inner[at[-1]] = ODD[int(r.integers(len(ODD)))]
    return d

PIECES = [b'\0', b'\xff\xfe', b'\xef\xbb\xbf', b'NaN', b'1e999', b'9'*5000, b'['*100_000, b'{"a":'*50_000, b'"', b'\n', b',', b'\r', b'-1', b'<!DOCTYPE x>', b'&x;', b'../', b'\x1b[2J', b' '*70_000]

def harmed(data, r, suffix):
    "Change the bytes of a file."
    how = int(r.integers(10))
    a, b = sorted(int(x) for x in r.integers(0, len(data)+1, 2))
    if suffix=='.json' and how<6:
        try: return json.dumps(replaced(json.loads(data), r)).encode('utf-8', 'surrogatepass')
        except ValueError: pass
    if suffix=='.gz' and how<5: return gzip.compress(harmed(gzip.decompress(data), r, '.json'))
    if how<=2: return data[:a]+PIECES[int(r.integers(len(PIECES)))]+data[b if r.random()<.3 else a:]
    if how==3: return data[:a]
    if how==4: return data[:a]+data[b:]
    if how==5: return data[:b]+data[a:]
    if how==6:                                         # another number in the place of one, in any text
        digits = [i for i in range(min(len(data), 100_000)) if data[i:i+1].isdigit()]
        if digits:
            i = digits[int(r.integers(len(digits)))]
            return data[:i]+[b'-1', b'9'*40, b'1e400', b'nan', b'x', b''][int(r.integers(6))]+data[i+1:]
    if how==7: return b''
    flipped = bytearray(data)
    for i in r.integers(0, max(1, len(data)), 1+int(r.integers(8))):
        if len(data): flipped[int(i)] ^= 1<<int(r.integers(8))
    return bytes(flipped)

def to_pipe(p): os.mkfifo(p)
def to_device(p): p.symlink_to('/dev/zero')
def to_folder(p): p.mkdir()
def to_itself(p): p.symlink_to(p.name)
def to_nothing(p): pass
PLACES = [to_pipe, to_device, to_folder, to_itself, to_nothing]


# --- what may come out --------------------------------------------------------------------------------------------------------

class Hangs(BaseException): pass

def listing(folder):
    out = []
    for at, folders, files in os.walk(folder):
        for n in folders+files:
            s = os.lstat(os.path.join(at, n))
            if not n.endswith('.lock'): out.append((at, n, s.st_size if n in files else 0, s.st_mtime_ns if n in files else 0))
    return sorted(out)

@contextlib.contextmanager
def limits(seconds=5, memory=3*2**30):
    "An error in the place of a hang, and where memory would be eaten."
    def stop(*_): raise Hangs
    before = signal.signal(signal.SIGALRM, stop)
    left, _ = signal.setitimer(signal.ITIMER_REAL, seconds)          # of pytest-timeout
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    now = int(Path('/proc/self/statm').read_text().split()[0])*resource.getpagesize() if Path('/proc/self/statm').exists() else 0
    if now: resource.setrlimit(resource.RLIMIT_AS, (now+memory, hard))
    try: yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.setitimer(signal.ITIMER_REAL, left)
        signal.signal(signal.SIGALRM, before)

COUNT = dict(cases=0, errors=0)

def attempt(do, where, folder=None):
    "Success or one sentence, or it is noted what came out."
    COUNT['cases'] += 1
    before = listing(folder) if folder else None
    try:
        with limits(), contextlib.redirect_stdout(io.StringIO()): do()
    except FsicError as e:
        COUNT['errors'] += 1
        if '\n' in str(e) or '\0' in str(e) or len(str(e))>1500: return f'{where}: no sentence: {str(e)[:300]!r}'
    except Hangs: return f'{where}: hangs'
    except Exception as e:
        at = traceback.extract_tb(e.__traceback__)
        own = [f for f in at if 'fsic_nb' in f.filename]
        return f'{where}: {type(e).__name__}: {str(e)[:200]!r} at '+' < '.join(f'{Path(f.filename).stem}:{f.name}:{f.lineno}' for f in reversed(own[-3:]))
    if folder and listing(folder)!=before: return f'{where}: wrote something'


# --- readers --------------------------------------------------------------------------------------------------------------------

@dataclass
class Reader:
    "Something that is read: `make` a good one in a folder, `read` it."
    make: object   # folder ->
    read: object   # folder ->
    files: tuple = () # which are harmed; none: all
    writes: bool = False # reading it may write
    cost: int = 1  # so much rarer

ROWS = [Row(f'{i}.jpg', ('cat',) if i%3 else ('dog', 'cat'), boxes=(('cat', 1, 2, 3, 4),), part='train' if i%2 else 'val') for i in range(5)]+[Row('none.jpg', ())]

def of_dialect(d):
    def make(folder):
        folder.mkdir()
        where = d.write(folder, ROWS, ['cat', 'dog']) or ''
        if d.data=='csv' and (folder/'labels.csv').exists(): where = 'labels.csv'
        make.where = where
    return Reader(make, lambda folder: read(d.data, folder/make.where, negatives=True).describe())

def nuswide(folder):
    (folder/'ImageList').mkdir(parents=True)
    (folder/'Groundtruth'/'AllLabels').mkdir(parents=True)
    (folder/'ImageList'/'Imagelist.txt').write_text('a\\1_a.jpg\na\\2_b.jpg\n')
    for n in NUSWIDE_NAMES: (folder/'Groundtruth'/'AllLabels'/f'Labels_{n}.txt').write_text('1\n0\n')

def imaterialist(folder):
    folder.mkdir()
    write_json(folder/'train.json', dict(images=[dict(imageId='1', url='x'), dict(imageId='2', url='x')], annotations=[dict(imageId='1', labelId=['1', '2']), dict(imageId='2', labelId=['3'])]))

def voc(folder):
    year = folder/'VOC2007'
    for n in ('Annotations', 'ImageSets/Main', 'JPEGImages'): (year/n).mkdir(parents=True)
    for i in range(3):
        (year/'JPEGImages'/f'{i}.jpg').write_text('x')
        (year/'Annotations'/f'{i}.xml').write_text(f'<annotation><filename>{i}.jpg</filename><size><width>9</width><height>9</height></size>'
            '<object><name>cat</name><difficult>0</difficult><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>4</xmax><ymax>4</ymax></bndbox></object></annotation>')
    for n in ('train', 'val'): (year/'ImageSets'/'Main'/f'{n}.txt').write_text('0\n1\n' if n=='train' else '2\n')

TOML = to_toml(next(iter(CELLS.values())))
def a_text(name, text): return lambda folder: (folder.mkdir(), (folder/name).write_bytes(text if isinstance(text, bytes) else text.encode()))

@pytest.fixture(scope='module')
def base(tmp_path_factory):
    home = tmp_path_factory.mktemp('fuzz')
    with pytest.MonkeyPatch.context() as m:
        m.setenv('FSIC_HOME', str(home/'home'))
        m.setattr(spaces, 'load_backbone', functools.cache(spaces.load_backbone))
        yield home

@pytest.fixture(scope='module')
def readers(base, exp, pictures, tiny):
    plan = Plan(PaperConfig(6, 5, dim=8, heads=2, prototype='wagp'), [exp.episodes('train', 1, ways=2)], Schedule(steps=2, warmup=1, every=2))
    def a_run(folder):
        with pytest.MonkeyPatch.context() as m:
            m.setattr(studies, 'make_kinds', lambda *_: None)
            m.setattr(studies, 'fit', lambda method, exp, seed, quick, say, run: train(plan, exp, run, seed))
            studies.fit_into('paper', exp, folder, say=lambda line: None)
    def read_a_run(folder):
        run = read_run(folder)
        studies.check_networks([run], tiny)
        studies.choose_options([run], 'scenes')
        studies.name_runs([run], [])
        studies.seen_labels(run, exp.split)
        load_model(folder/'best')
    def go_on(folder):
        studies.check_new_run(folder, dict(method='paper', data='scenes', seed=0, quick=False, options={}))
        studies.check_same_network(folder, tiny)
        model = plan.cfg.build()
        resume_run(folder, model, torch.optim.Adam(model.parameters(), fused=True))
        begin_run(folder, describe_training(plan, exp, 0))
    def log(folder):
        open_log(folder/'log.jsonl', 2).close()
    def a_store(folder):
        extract(pictures, tiny, 'fp32', root=folder)
    def read_a_store(folder):
        store = FeatureStore(next(p.parent for p in folder.glob('*/meta.json')))
        store[[0, 1]], store.mean_of([0])
    def begun(folder):
        a_store(folder)
        shutil.rmtree(next(p.parent for p in folder.glob('*/meta.json')))
        shard = next(p for p in (folder/'shards').iterdir() if p.is_dir())
        (shard/'meta.json').unlink()
        for name in ('locals', 'means', 'sums'): os.truncate(shard/f'{name}.npy', (shard/f'{name}.npy').stat().st_size-5)
        shard.rename(shard.with_name(f'.{shard.name}.part'))
    own = ImageSet(pictures, ['a', 'b'], np.eye(2, dtype=bool)[np.arange(len(pictures))%2], 'own')
    def a_split(folder):
        folder.mkdir()
        LabelSplit('own', ['a', 'b'], ['c'], [['d', 'e'], ['f']]).to_json(folder/'s.json')
    def a_manifest(folder):
        folder.mkdir()
        prepare_tree(own, folder/'m.jsonl', 1)
    def a_part(folder):
        a_manifest(folder)
        (folder/'m.jsonl').rename(folder/'.m.jsonl.part')
    lists = dict(names=['a', 'b'], train={'1.jpg': [0], '2.jpg': [0, 1]}, val={'3.jpg': [1]})
    def a_list(folder):
        folder.mkdir()
        write_json(folder/'l.json', lists)
        (folder/'z.json.gz').write_bytes(gzip.compress(json.dumps(lists).encode()))
    def a_pool(folder):
        folder.mkdir()
        write_json(folder/'p.json', {'0': {'label 6': ['6', '14'], 'label 7': ['7']}})
    def read_a_pool(folder):
        FixedEpisodes(exp.images, LabelSplit('t', [], [], ['label 6', 'label 7']), read_supports(folder/'p.json'), queries=2, protocol='masked')
    def scenes(folder): make_scenes(folder, 0, (1, 1, 1), (1, 1, 1), 32, 2)
    words = {f'w{i}': rng('w', i).standard_normal(4).astype('<f4') for i in range(30)}
    text = ''.join(f'{w} {" ".join(map(str, v))}\n' for w, v in words.items()).encode()
    binary = b'30 4\n'+b''.join(w.encode()+b' '+v.tobytes()+b'\n' for w, v in words.items())
    with contextlib.redirect_stdout(io.StringIO()): t = Tagger(words=False).fit(pictures[:2], ['cat', 'dog'])
    space = t.space_
    make(base/'photos', 20)
    def a_table(folder):
        folder.mkdir()
        tag_photos(Fake(), base/'photos', folder/'t.csv')
    def a_shortlist(folder):
        folder.mkdir()
        short = Shortlist(folder/'t.csv', 10)
        for _ in tagging.stream_tags(TagForm(Fake()), tagging.list_photos(base/'photos'), folder/'t.csv', short): pass
        a_shortlist.heap = short.heap
    def read_a_shortlist(folder):
        short = Shortlist(folder/'t.csv', 10)
        short.heap = a_shortlist.heap
        explain_shortlist(short, TagForm(Fake()), tagging.list_photos(base/'photos'))
    def a_csv(folder):
        folder.mkdir()
        (folder/'e.csv').write_text('image,tags\n'+''.join(f'{p},a;b\n' for p in pictures))
    about = dict(hash='h', labels=['a', 'b'], shots=1, queries=2, seed=0, data='d', protocol='strict', split='s', split_hash='h', part='test')
    results = {m: dict({k: np.arange(3.) for k in ('map', 'micro_ap', 'macro_f1', 'macro_f1_pr', 'micro_f1', 'chance')}, ap=np.ones((3, 2)), positives=np.ones((3, 2)))
               for m in ('simpleshot', 'protonet')}
    def some_shards(folder):
        folder.mkdir()
        write_parts(folder/'1shot-00000000-00000003.npz', [Part(about, 0, results)])
        how = dict(shots=[1], episodes=3, seed=0, quick=True, baseline='simpleshot', options={}, trust=False)
        drawn = dict(about=about, images='h', split={}, ways=None)
        write_json(folder/'spec.json', dict(runs=[], names=[], data='scenes', root=None, how=how, store='', episodes=[drawn], checks={}))
    def merge(folder): merge_folder(folder, base/'merged.json', say=lambda line: None)
    def some_scores(folder):
        folder.mkdir()
        write_block(folder/'000000.npz', Block(['a.jpg', 'b.jpg'], to_two_bytes(np.array([[.1, .9], [.2, .3]]), True), ['', ''], np.zeros((2, 2), np.int64)))
    all_words = dict(text=a_text('w.txt', text), header=a_text('w.txt', b'30 4\n'+text), binary=a_text('w.txt', binary), gz=a_text('w.txt', gzip.compress(text)), small_gz=a_text('w.txt', gzip.compress(binary)))
    return {
        'run': Reader(a_run, read_a_run, ('about.json', 'run.json', 'last/state.json', 'best/config.json', 'best/weights.safetensors', 'best/sums.json')),
        'continued': Reader(a_run, go_on, ('about.json', 'run.json', 'last/state.json', 'last/weights.safetensors', 'last/adam.safetensors', 'last/sums.json'), writes=True),
        'log': Reader(a_run, log, ('log.jsonl',), writes=True),
        'store': Reader(a_store, read_a_store), 'part': Reader(begun, a_store, ('sums.npy', 'locals.npy'), writes=True),
        'shards': Reader(some_shards, merge), 'scores': Reader(some_scores, lambda f: read_block(f/'000000.npz', 2, True)),
        'split': Reader(a_split, lambda f: load_split(f/'s.json')),
        'manifest': Reader(a_manifest, lambda f: read('manifest', f/'m.jsonl', negatives=True).describe()),
        'manifest again': Reader(a_manifest, lambda f: prepare_tree(own, f/'m.jsonl', 1), writes=True),
        'manifest part': Reader(a_part, lambda f: prepare_tree(own, f/'m.jsonl', 1), writes=True),
        'labels': Reader(a_list, lambda f: (read_labels(f/'l.json'), read_labels(f/'z.json.gz'))), 'supports': Reader(a_pool, read_a_pool),
        'config': Reader(a_text('c.toml', TOML), lambda f: read_cell(f/'c.toml')),
        'scenes': Reader(scenes, scenes, ('scenes.json', 'cells.npy')),
        **{f'words {k}': Reader(m, lambda f: load_words(f/'w.txt')) for k, m in all_words.items()},
        'tagger': Reader(lambda f: t.save(f), Tagger.load, ('tagger.json', 'examples.safetensors', 'sums.json'), cost=2),
        'space': Reader(lambda f: (f.mkdir(), space.save(f/'s')), lambda f: load_space(f/'s'), cost=2),
        'table': Reader(a_table, lambda f: tag_photos(Fake(), base/'photos', f/'t.csv'), ('t.csv',), writes=True),
        'shortlist': Reader(a_shortlist, read_a_shortlist, ('.t.csv.photos.jsonl',)),
        'examples': Reader(a_csv, lambda f: read_examples(f/'e.csv')),
        'nuswide': Reader(nuswide, lambda f: read('nuswide', f, files='unchecked'), ('Imagelist.txt', 'Labels_cat.txt')),
        'imaterialist': Reader(imaterialist, lambda f: read('imaterialist', f, files='unchecked')), 'voc': Reader(voc, lambda f: read('voc', f)),
        **{f'dialect {d.name}': of_dialect(d) for d in DIALECTS}}

def names():
    own = ['run', 'continued', 'log', 'store', 'part', 'shards', 'scores', 'split', 'manifest', 'manifest again', 'manifest part', 'labels', 'supports', 'config', 'scenes', *(f'words {k}' for k in ('text', 'header', 'binary', 'gz', 'small_gz')),
           'tagger', 'space', 'table', 'shortlist', 'examples', 'nuswide', 'imaterialist', 'voc']
    return own+[f'dialect {d.name}' for d in DIALECTS]

@pytest.mark.parametrize('name', names())
def test_only_sentences_come_out(name, readers, base, tmp_path):
    reader = readers[name]
    good = tmp_path/'good'
    reader.make(good)
    every = sorted(p for p in good.rglob('*') if p.is_file() and p.suffix not in ('.lock', '.jpg'))
    files = [p.relative_to(good) for p in every if not reader.files or any(p.relative_to(good).as_posix().endswith(f) for f in reader.files)]
    if not reader.files and len(files)>4: files = files[:4]
    assert files or not every
    folder = tmp_path/'f'
    shutil.copytree(good, folder)
    found = []
    with limits(60), contextlib.redirect_stdout(io.StringIO()): reader.read(folder)       # which is good
    if reader.writes:
        shutil.rmtree(folder)
        shutil.copytree(good, folder)
    tries = max(1, TRIES//reader.cost)
    for file in files:
        data = (good/file).read_bytes()
        for k in range(tries):
            (folder/file).write_bytes(harmed(data, rng(SEED, name, str(file), k), Path(file).suffix))
            found.append(attempt(lambda: reader.read(folder), f'{name}, {file}, number {k}', None if reader.writes else folder))
            if reader.writes:
                shutil.rmtree(folder)
                shutil.copytree(good, folder)
        for turn in PLACES:
            (folder/file).unlink()
            turn(folder/file)
            found.append(attempt(lambda: reader.read(folder), f'{name}, {file}, {turn.__name__}', None if reader.writes else folder))
            shutil.rmtree(folder)
            shutil.copytree(good, folder)
    assert not any(found), '\n'.join(filter(None, found))

def test_the_count():
    print(COUNT)
    assert COUNT['cases']==0 or COUNT['errors']>COUNT['cases']//5     # harm does harm
