"Scores of any number of images, shard by shard: the same bytes however they are cut and whoever computes them; others are refused."
import functools, io, json, os, shutil, sys, tarfile, zipfile
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
import numpy as np, pytest, torch
from fsic_nb import apply as module, space as space_module
from fsic_nb.apply import ByName, How, Scorer, Stored, apply, compute_shard, open_scores, plan_scores, read_tar
from fsic_nb.backbones import load_backbone
from fsic_nb.bench import blank_space, write_jpegs
from fsic_nb.core import FsicError
from fsic_nb.examples import list_photos
from fsic_nb.refined import RefinedConfig
from fsic_nb.support import Features, Support
from fsic_nb.tagger import Tagger
from fsic_nb.tagging import TagForm, stream_tags
from test_tag import call

N = 11
HOW = dict(device='cpu')


@pytest.fixture(scope='module', autouse=True)
def quick():
    "Load each network once: here all workers are one process."
    with pytest.MonkeyPatch.context() as m:
        once = functools.lru_cache(load_backbone)
        for user in (space_module, module): m.setattr(user, 'load_backbone', once)
        yield

@pytest.fixture(scope='module')
def made(tmp_path_factory):
    "Photos, and two taggers that are saved; their network is small, and only its key is that of the packaged weights."
    folder = tmp_path_factory.mktemp('apply')
    write_jpegs(folder/'examples', 4)
    paths = write_jpegs(folder/'photos', N)
    space = blank_space()
    space.__dict__.pop('network')
    bb = load_backbone('lite0', size=64, device='cpu')
    object.__setattr__(space, 'key', bb.key)
    space.__dict__['network'] = bb
    for name, tags in dict(tags=['a', 'b', 'a', 'b'], other=['a', 'b', 'b', 'b']).items():
        t = Tagger(words=False)
        t.space_ = space
        t.fit(sorted(map(str, (folder/'examples').iterdir())), [[x] for x in tags]).save(folder/name)
    return folder

@pytest.fixture(scope='module')
def tagger(made): return Tagger.load(made/'tags', device='cpu')

@pytest.fixture
def here(made, tmp_path, monkeypatch):
    "A folder of its own, with the photos in it."
    shutil.copytree(made/'photos', tmp_path/'photos')
    monkeypatch.chdir(tmp_path)
    return tmp_path

def contents(folder): return {p.name: p.read_bytes() for p in Path(folder).glob('*.npz')}
def p_of(scores): return np.concatenate([b.p for b in scores])
def names_of(scores): return [n for b in scores for n in b.names]

class Lazy:
    "An engine that computes the last task first, when somebody waits for it."
    def __init__(self): self.jobs = []
    def submit(self, f, *args):
        job = Future()
        self.jobs.append((job, f, args))
        inner, job.result = job.result, lambda timeout=None: (self.work(), inner())[1]
        return job
    def work(self):
        while self.jobs:
            job, f, (inner, task) = self.jobs.pop()
            job.set_result(f(inner, json.loads(json.dumps(task))))       # plain data


# --- the same, however it is cut and whoever computes it -----------------------------------------------------------------------

def test_any_size_any_engine_any_kill(tagger, here):
    whole = apply(tagger, None, 'photos', None, 'whole', How(places=True, **HOW))
    assert len(whole)==N and [len(b.names) for b in whole]==[N] and names_of(whole)==list_photos('photos').names
    stream = np.concatenate([b.p for b in tagger.stream('photos')])
    assert np.abs(p_of(whole)-stream).max()<=5.1e-5                      # four decimals
    for size in (1, 4):
        scores = apply(tagger, None, 'photos', Lazy(), f's{size}', How(shard=size, places=True, **HOW))
        assert np.array_equal(p_of(scores), p_of(whole)) and names_of(scores)==names_of(whole)
        assert np.array_equal(*(np.concatenate([b.places for b in s]) for s in (scores, whole)))
    once = contents('s4')
    assert len(once)==3
    for gone in ('000000.npz', '000002.npz'):                            # killed before, or in the middle of one that is left whole
        Path('s4', gone).unlink()
        Path('s4', f'.{gone}.host-1-2.part').write_bytes(once[gone][:50])
    before = Path('s4/000001.npz').stat().st_mtime_ns
    with ThreadPoolExecutor(2) as pool: apply(tagger, None, 'photos', pool, 's4', How(shard=4, places=True, **HOW))
    assert contents('s4')==once and Path('s4/000001.npz').stat().st_mtime_ns==before
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        module._method_of.cache_clear()
        apply(tagger, None, 'photos', None, 'threads', How(shard=4, places=True, **HOW))
    finally: torch.set_num_threads(threads)
    assert contents('threads')==once
    for i in (3, 1, 2, 2):                                               # a job array, one of them twice, in any order
        assert apply(tagger, None, 'photos', None, 'parts', How(shard=4, places=True, part=f'{i}/3', **HOW)) is None
    assert contents('parts')==once

def test_a_worker_that_dies(tagger, here, monkeypatch):
    class Dies(Lazy):
        def work(self): raise MemoryError('no room')
    with pytest.raises(FsicError, match='a worker ended .*run the same again'): apply(tagger, None, 'photos', Dies(), 's', How(shard=4, **HOW))
    with pytest.raises(FsicError, match='3 of 3 shards are missing, such as 000000.npz; run the same again'): open_scores('s')
    assert len(apply(tagger, None, 'photos', None, 's', How(shard=4, **HOW)))==N

def test_only_what_has_changed(tagger, here, monkeypatch):
    how = How(shard=4, **HOW)
    def computed(): return [compute_shard(t) for t in plan_scores(tagger, 'photos', 's', how)]
    assert computed()==[4, 4, 3] and computed()==[0, 0, 0]
    first, *_, last = sorted(Path('photos').iterdir())
    old = open_scores('s')
    shutil.copy(last, first)                                             # another photo under the same name
    assert computed()==[4, 0, 0] and (p_of(open_scores('s'))[0]==p_of(old)[-1]).all()
    shutil.copy(first, 'photos/zz.jpg')                                  # one more
    assert computed()==[0, 0, 4] and len(open_scores('s'))==N+1
    damaged = Path('s/000001.npz')
    damaged.write_bytes(damaged.read_bytes()[:-40])
    with pytest.raises(FsicError, match='000001.npz: damaged'): list(open_scores('s'))
    assert computed()==[0, 4, 0]
    for p in sorted(Path('photos').iterdir())[4:]: p.unlink()            # fewer: what is left over is named
    assert computed()==[0]
    with pytest.raises(FsicError, match='000001.npz: is no shard of these images; delete it'): open_scores('s')

def test_shards_that_were_mixed_up(tagger, here):
    apply(tagger, None, 'photos', None, 's', How(shard=4, **HOW))
    shutil.copy('s/000000.npz', 's/000001.npz')
    with pytest.raises(FsicError, match='000001.npz: has scores of other images; run the same again'): list(open_scores('s'))
    shutil.copy('s/000000.npz', 's/000000 (copy).npz')
    with pytest.raises(FsicError, match=r'\(copy\).npz: is no shard'): open_scores('s')


# --- others are refused --------------------------------------------------------------------------------------------------------

def test_another_method_or_code(made, tagger, here, monkeypatch):
    how = How(shard=4, **HOW)
    tasks = plan_scores(tagger, 'photos', 's', how)
    other = Tagger.load(made/'other', device='cpu')
    for change, said in ((dict(shard=5), 'was begun with shards of 4'), (dict(shard=4, places=True), 'with or without best places')):
        with pytest.raises(FsicError, match=said): apply(tagger, None, 'photos', None, 's', How(**change, **HOW))
    with pytest.raises(FsicError, match='was begun with another method, or examples; name another folder'): apply(other, None, 'photos', None, 's', how)
    with pytest.raises(FsicError, match='fit it'): apply(Tagger(), None, 'photos', None, 's', how)
    with monkeypatch.context() as m:
        m.setattr(module, 'hash_code', lambda *_: 'f00d')
        module._spec_of.cache_clear()
        with pytest.raises(FsicError, match='by other code of this library'): apply(tagger, None, 'photos', None, 's', how)
        with pytest.raises(FsicError, match='install the same version everywhere'): compute_shard(tasks[0])
    with monkeypatch.context() as m:                                     # a worker whose network is another one
        m.setattr(module, 'load_method', lambda *_: Scorer(None, None, [], None) if 0 else tagger)
        m.setitem(tagger.space_.__dict__, 'network', load_backbone('lite0', pretrained=False, size=64, device='cpu'))
        module._method_of.cache_clear()
        with pytest.raises(FsicError, match='other weights of lite0'): compute_shard(tasks[0])
    module._method_of.cache_clear()
    Path('s/method/about.json').write_text('{}')
    with pytest.raises(FsicError, match='is not what was written; delete'): compute_shard(tasks[0])
    with pytest.raises(FsicError, match='begun anew'): compute_shard(dict(tasks[0], spec='other'))

@pytest.mark.parametrize('place', ['photos', 'photos/0.txt'])
def test_a_folder_of_something_else(tagger, here, place):
    Path('photos/0.txt').touch()
    with pytest.raises(FsicError, match='holds something else; name another folder'): apply(tagger, None, 'photos', None, place, How(**HOW))

def test_devices(tagger, here):
    with pytest.raises(FsicError, match="device 'cuda:77': cannot be used .*use cpu"): apply(tagger, None, 'photos', None, 's', How(device='cuda:77'))
    apply(tagger, None, 'photos', None, 's', How(**HOW))
    spec = json.loads(Path('s/spec.json').read_text())
    Path('s/spec.json').write_text(json.dumps(dict(spec, device='cuda')))
    with pytest.raises(FsicError, match='on another kind of device'): apply(tagger, None, 'photos', None, 's', How(**HOW))

@pytest.mark.parametrize('harm', ['empty', 'pickle', 'bomb', 'shape', 'kind', 'above'])
def test_hostile_shards(tagger, here, harm, monkeypatch):
    apply(tagger, None, 'photos', None, 's', How(**HOW))
    path = Path('s/000000.npz')
    with np.load(path) as f: arrays = dict(f)
    if harm=='pickle': arrays['scores'] = np.array([print]*N, object)
    if harm=='shape': arrays['scores'] = arrays['scores'][:, :1]
    if harm=='kind': arrays['scores'] = arrays['scores'].astype(np.float16)
    if harm=='above': arrays['scores'][0] = 20_000
    with path.open('wb') as f: np.savez_compressed(f, **arrays)
    if harm=='empty': path.write_bytes(b'')
    if harm=='bomb':
        monkeypatch.setattr(module, '_MOST', 2**20)
        with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as z, z.open('scores.npy', 'w') as f:
            for _ in range(2): f.write(bytes(2**20))
    with pytest.raises(FsicError, match='000000.npz: damaged'): list(open_scores('s'))


# --- methods with a support ----------------------------------------------------------------------------------------------------

def test_methods_with_a_support(made, tagger, here):
    bb = tagger.space_.network
    f = torch.stack([r.f for r in tagger.read(made/'examples')]).float()
    y = torch.tensor([[1, 0], [0, 1], [1, 0], [0, 1]])
    torch.manual_seed(0)
    model = RefinedConfig(channels=bb.channels, dim=8, word_dim=4).build().eval()
    support = Support(Features(f), y, torch.randn(2, 4))
    few = dict(HOW, backbone=bb, tags=('cat', 'dog'), places=True)
    for name, method in dict(simple=ByName('simpleshot', f.mean((0, 1))), model=model).items():
        a = apply(method, support, 'photos', None, name, How(shard=4, **few))
        b = apply(method, support, 'photos', Lazy(), name+'2', How(shard=3, **few))
        assert next(iter(a)).scores.dtype==np.float16 and np.array_equal(p_of(a), p_of(b)) and a.tags==['cat', 'dog']
        [r] = tagger.read([sorted(Path('photos').iterdir())[0]])
        with torch.inference_mode(): want = method(support)(Features(r.f[None].float()))[0].numpy()
        assert np.allclose(p_of(a)[0], want, atol=2e-3*max(1, abs(want).max()))
    with pytest.raises(FsicError, match='was begun with another method'): apply(model, support, 'photos', None, 'simple', How(shard=4, **few))
    moved = Support(Features(f), y.flip(1), support.g)
    with pytest.raises(FsicError, match='was begun with another method'): apply(model, moved, 'photos', None, 'model', How(shard=4, **few))
    with pytest.raises(FsicError, match='is no plain data'): apply(lambda s: lambda q: q.means[..., :2], support, 'photos', None, 'l', How(**few))


# --- tar files -----------------------------------------------------------------------------------------------------------------

def tar_of(path, members, **kw):
    "A tar file of (name, bytes or TarInfo) pairs."
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, 'w', **kw) as tar:
        for name, data in members:
            info = data if isinstance(data, tarfile.TarInfo) else tarfile.TarInfo(name)
            if not isinstance(data, tarfile.TarInfo): info.size = len(data)
            info.name = name
            tar.addfile(info, None if isinstance(data, tarfile.TarInfo) else io.BytesIO(data))
    return path

def special(kind, target=''):
    info = tarfile.TarInfo()
    info.type, info.linkname = kind, target
    return info

def test_tar_files(tagger, here):
    files = sorted(Path('photos').iterdir())
    data = [(p.name, p.read_bytes()) for p in files]
    odd = [('l.jpg', special(tarfile.SYMTYPE, '/etc/passwd')), ('h.jpg', special(tarfile.LNKTYPE, files[0].name)), ('d.jpg', special(tarfile.CHRTYPE)),
           ('f.jpg', special(tarfile.FIFOTYPE)), ('dir.jpg', special(tarfile.DIRTYPE)), ('a.pyd', b'x'), ('a.pickle', b'x'), ('a.cls', b'1'), ('.a.jpg', b'x')]
    tar_of(Path('t/s-000.tar'), data[:4]+odd)
    tar_of(Path('t/s-001.tar'), [(f'../{n}', d) for n, d in data[4:]])
    tar_of(Path('t/s-002.tar'), [])
    whole = apply(tagger, None, 'photos', None, 'whole', How(**HOW))
    for images in ('t/s-{000..002}.tar', 't/*.tar', [f't/s-00{i}.tar' for i in range(3)]):
        scores = apply(tagger, None, images, None, 's', How(**HOW))
        assert np.array_equal(p_of(scores), p_of(whole)) and len(scores)==N and scores.photos().names==names_of(scores)
        assert names_of(scores)==[f's-000.tar/{n}' for n, _ in data[:4]]+[f's-001.tar/../{n}' for n, _ in data[4:]]
    shutil.copytree('t', 'u')
    both = apply(tagger, None, 'u/s-000.tar t/s-000.tar'.split(), None, 'both', How(**HOW))
    assert names_of(both)[0]==f'u/s-000.tar/{data[0][0]}' and len(set(names_of(both)))==8
    assert not Path('passwd').exists() and not list(here.parent.glob('*.jpg'))

@pytest.mark.parametrize('harm, said', [
    ('cut', 'a.tar: cannot be read as a tar file'), ('cut between', 'it is cut'), ('twice', "'1.jpg' is there twice"), ('gz', 'cannot be read as a tar file'),
    ('text', 'cannot be read as a tar file'), ('none', 'a.tar: no such file'), ('folder', 'a.tar: cannot be read'), ('two in one', 'goes on behind its end'),
    ('no image', r'a.tar/1.jpg: cannot be read as an image .*\(--skip-unreadable'), ('sparse', "'1.jpg' has holes")])
def test_hostile_tar_files(tagger, here, harm, said):
    image = next(Path('photos').iterdir()).read_bytes()
    path = tar_of(Path('a.tar'), [('1.jpg', b'GIF89a' if harm=='no image' else image), ('1.jpg' if harm=='twice' else '2.jpg', image)])
    whole = path.read_bytes()
    if harm=='cut': path.write_bytes(whole[:len(image)])
    if harm=='cut between': path.write_bytes(whole[:512+-(-len(image)//512)*512])
    if harm=='gz':
        with tarfile.open(path, 'w:gz') as tar: tar.add('photos')
    if harm=='text': path.write_text('hello'*200)
    if harm=='two in one': path.write_bytes(whole+whole)
    if harm in ('none', 'folder'): path.unlink()
    if harm=='folder': path.mkdir()
    if harm=='sparse':
        info = special(tarfile.GNUTYPE_SPARSE)
        head = bytearray(info.tobuf(tarfile.GNU_FORMAT))
        head[0:5], head[483:495] = b'1.jpg', b'77777777777\0'           # 8 GiB of nothing
        head[148:156] = b' '*8
        head[148:156] = b'%06o\0 ' % sum(head)
        path.write_bytes(bytes(head)+bytes(1024))
    with pytest.raises(FsicError, match=said): apply(tagger, None, 'a.tar', None, 's', How(**HOW))
    if harm=='no image':
        scores = apply(tagger, None, 'a.tar', None, 's', How(skip=True, **HOW))
        assert np.isnan(p_of(scores)[0]).all() and not np.isnan(p_of(scores)[1]).any() and 'cannot be read' in next(iter(scores)).errors[0]

def test_nothing_but_local_files(tagger, here, monkeypatch):
    for bad in ('pipe:touch x.tar', 'http://x.y/a.tar', 'gs://a/b.tar', '/dev/zero/a.tar'):
        with pytest.raises(FsicError): apply(tagger, None, bad, None, 's', How(**HOW))
    with pytest.raises(FsicError, match='cannot be read'): list(read_tar('pipe:touch x.tar'))
    os.mkfifo('b.tar')
    with pytest.raises(FsicError, match='no regular file'): list(read_tar('b.tar'))
    assert not Path('x.tar').exists()
    monkeypatch.setitem(sys.modules, 'webdataset.tariterators', None)
    with pytest.raises(FsicError, match='pip install webdataset'): list(read_tar('b.tar'))


# --- the table and the command --------------------------------------------------------------------------------------------------

def test_the_table_is_the_same(tagger, here):
    Path('photos/bad, "one".jpg').write_text('no image')
    with pytest.raises(FsicError, match=r'bad, "one".jpg: cannot be read .*\(--skip-unreadable, in Python skip=True, goes on'): apply(tagger, None, 'photos', None, 's', How(shard=4, **HOW))
    scores = apply(tagger, None, 'photos', None, 's', How(shard=4, skip=True, **HOW))
    with pytest.raises(FsicError, match='skip-unreadable'): apply(tagger, None, 'photos', None, 's', How(shard=4, **HOW))
    for threshold in ('auto', .5, 'top1'):
        for t, photos, out in ((tagger, list_photos('photos'), 'a.csv'), (Stored(tagger, scores), scores.photos(), 'b.csv')):
            assert sum(1 for _ in stream_tags(TagForm(t, threshold, skip=True), photos, Path(out)))==N+1
        assert Path('a.csv').read_bytes()==Path('b.csv').read_bytes()
        whole = Path('b.csv').read_bytes()
        Path('b.csv').write_bytes(whole[:len(whole)//2])                 # cut, and continued
        for _ in stream_tags(TagForm(Stored(tagger, scores), threshold, skip=True), scores.photos(), Path('b.csv')): pass
        assert Path('b.csv').read_bytes()==whole
        for out in ('a.csv', 'b.csv'): Path(out).unlink()

def test_the_command(made, here):
    tags = made/'tags'
    def run(*argv): return call('predict', tags, *argv)
    assert run('photos', '--out', 'a.csv', '--device', 'cpu')[2]==0
    for i in (1, 2):
        out, err, code = run('photos', '--scores', 's', '--shard', f'{i}/2', '--json')
        assert code==0 and json.loads(out)==dict(scores='s', shard=f'{i}/2') and f'{i-1} of 1 shards are there; next: '+'the other parts, then '*(i==1)+'the same without --shard' in err and not Path('tags.csv').exists()
    out, err, code = run('photos', '--scores', 's', '--out', 'b.csv', '--report', 'r.html')
    assert code==0 and Path('a.csv').read_bytes()==Path('b.csv').read_bytes() and 'data:image/jpeg' in Path('r.html').read_text()
    out, err, code = run('photos', '--scores', 's', '--out', 'c.csv', '--threshold', '.5')
    assert code==0 and run('photos', '--out', 'd.csv', '--threshold', '.5')[2]==0 and Path('c.csv').read_bytes()==Path('d.csv').read_bytes()
    tar_of(Path('t.tar'), [(p.name, p.read_bytes()) for p in sorted(Path('photos').iterdir())])
    out, err, code = run('t.tar', '--scores', 'st', '--out', 'e.csv')
    assert code==0 and Path('e.csv').read_text().replace('t.tar/', '')==Path('a.csv').read_text()

@pytest.mark.parametrize('argv, said', [
    ('photos --shard 1/2', '--shard 1/2: needs --scores DIR'), ('photos --scores s --shard 3/2', '--shard 3/2: use a part'), ('photos --scores photos', 'holds something else'),
    ('t.tar', 'add --scores DIR'), ('t.tar --scores s --report r.html', '--report: shows photos that are files'), ('photos --device cuda:99', "device 'cuda:99': cannot be used"),
    ('t.tar photos --scores s', 'one or the other'), ('none.tar --scores s', 'none.tar: no such file')])
def test_mistakes(made, here, argv, said):
    tar_of(Path('t.tar'), [])
    out, err, code = call('predict', made/'tags', *argv.split())
    assert code==2 and said in err and 'Traceback' not in err and len(err.strip().splitlines())==1
    assert not Path('tags.csv').exists()

def test_refused_by_the_command(made, here):
    assert call('predict', made/'tags', 'photos', '--scores', 's', '--shard', '1/1')[2]==0
    out, err, code = call('predict', made/'other', 'photos', '--scores', 's')
    assert code==2 and 'was begun with another method, or examples; name another folder' in err
