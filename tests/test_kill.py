"""Killed at any step and continued: the same bits, nothing left over, one checkpoint lost at most. A full disk: one sentence.

Every step on the disk is a point: opening a file to write, each write, fsync, rename, mkdir, unlink. A child of `os.fork` runs a job and ends
at its k-th point as `kill -9` would end it (a write is cut in the middle); then the same call runs again.
"""
import builtins, contextlib, errno, io, json, os, shutil, signal, subprocess, time, traceback, warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from fsic_nb import backbones, features, finetune, prepare, studies, tagger, train
from fsic_nb.backbones import Transform, freeze_network
from fsic_nb.core import FsicError, rng
from fsic_nb.data import ImageSet, LabelSplit
from fsic_nb.experiment import Experiment
from fsic_nb.files import build_once, write_json
from fsic_nb.model import PaperConfig
from fsic_nb.scenes import make_scenes
from fsic_nb.tagging import tag_photos
from fsic_nb.train import Plan, Schedule
from test_finetune import TINY, toy
from test_tagging import Fake, make

pytestmark = pytest.mark.skipif(not hasattr(os, 'fork'), reason='a job is killed in a child of fork')
silent = lambda *_: None


# --- points ----------------------------------------------------------------------------------------------------------------

GROWS = 'rename replace mkdir write fsync ftruncate truncate'.split()      # a full disk refuses these
ENDS = 'unlink rmdir remove'.split()                                       # but not these

class Written:
    "A file that is written; each write is a point, at which half of it reaches the disk."
    def __init__(self, file, point): self.__dict__.update(file=file, point=point)
    def __getattr__(self, name):
        if name=='fileno' and str(self.file.name).endswith('.jpg'): raise io.UnsupportedOperation(name) # or Pillow writes past us
        return getattr(self.file, name)
    def __enter__(self): return self
    def __exit__(self, *_): self.file.close()
    def __iter__(self): return iter(self.file)
    def write(self, data):
        def half():
            self.file.write(data[:len(data)//2] if isinstance(data, (str, bytes)) else bytes(data)[:memoryview(data).nbytes//2])
            self.file.flush()
        self.point('write', half)
        return self.file.write(data)
    def writelines(self, lines):
        for line in lines: self.write(line)

@contextlib.contextmanager
def points(at):
    "Call `at(name, half)` before every step on the disk; fsync itself is left out, since no power fails here."
    def system(name):
        real = getattr(os, name)
        def call(*args, **kw):
            half = (lambda: real(args[0], args[1][:len(args[1])//2])) if name=='write' else silent
            at(name, half)
            if name!='fsync': return real(*args, **kw)
        return call
    real = io.open
    def open(file, mode='r', *args, **kw):
        if isinstance(file, int) or not set(mode)&set('wax+'): return real(file, mode, *args, **kw)
        at('open', silent)
        return Written(real(file, mode, *args, **kw), at)
    with pytest.MonkeyPatch.context() as m:
        for name in GROWS+ENDS: m.setattr(os, name, system(name))
        m.setattr(io, 'open', open)
        m.setattr(builtins, 'open', open)
        yield

def child(job, tell=silent):
    "Run a job in a child; its exit code, and what it wrote to `tell`'s file."
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', DeprecationWarning)                # of Python 3.12, about threads
        pid = os.fork()
    if not pid:
        code = 1
        try:
            job(lambda x: _tell(write, x))
            code = 0
        except FsicError as e: _tell(write, f'FsicError: {e}')
        except BaseException: _tell(write, traceback.format_exc())
        finally: os._exit(code)
    os.close(write)
    return pid, read

_real_write = os.write
def _tell(file, text): _real_write(file, (str(text)+'\0').encode())

def wait(pid, read, seconds=60):
    "Exit code of a child, and what it told."
    begun = time.monotonic()
    told = b''
    os.set_blocking(read, False)
    while True:
        with contextlib.suppress(BlockingIOError):
            while more := os.read(read, 1<<16): told += more
        done, status = os.waitpid(pid, os.WNOHANG)
        if done: break
        if time.monotonic()-begun>seconds:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise AssertionError(f'hangs: {told.decode()}')
        time.sleep(.002)
    with contextlib.suppress(BlockingIOError):
        while more := os.read(read, 1<<16): told += more
    os.close(read)
    return os.waitstatus_to_exitcode(status), told.decode().split('\0')[:-1]


# --- jobs -------------------------------------------------------------------------------------------------------------------

@pytest.fixture(scope='module')
def base(tmp_path_factory): return tmp_path_factory.mktemp('kill')

@pytest.fixture(scope='module')
def tiny():
    torch.manual_seed(0)
    return freeze_network('tiny', torch.nn.Sequential(torch.nn.Conv2d(3, 8, 8, stride=8)), Transform(32), 'cpu')

@pytest.fixture(scope='module')
def exp(tiny):
    "An experiment that needs no network: random features of 80 images."
    r = np.random.default_rng(0)
    names = [f'label {c}' for c in range(8)]
    y = np.eye(8, dtype=bool)[np.arange(80)%8] | (r.random((80, 8))<.1)
    images = ImageSet([f'{i}.jpg' for i in range(80)], names, y, 'toy')
    f = torch.randn(80, 9, 6, generator=torch.Generator().manual_seed(0))
    class Store:
        channels, key, means = 6, 'toy', f.mean(1)
        meta = dict(backbone=tiny.name, weights=tiny.key, transform=dict(size=tiny.size))
        def __len__(self): return len(f)
        def __getitem__(self, ids): return f[torch.as_tensor(ids)]
        def mean_of(self, ids): return f[torch.as_tensor(ids)].mean(-2)
    words = torch.randn(8, 5, generator=torch.Generator().manual_seed(1))
    return Experiment('scenes', images, LabelSplit('toy', names[:4], names[4:6], names[6:]), Store(), words, protocol='masked')

@pytest.fixture(scope='module')
def pictures(base):
    (base/'pictures').mkdir()
    paths = [base/'pictures'/f'{i}.png' for i in range(6)]
    for i, p in enumerate(paths): Image.fromarray(rng('kill', i).integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(p)
    return paths

@dataclass
class Job:
    "Something that is done in a folder; `tell(step)` says that a step was made."
    do: object          # called with the folder and `tell`
    steps: int = 0      # that are told
    lost: int = 0       # that may be made again after a kill
    begin: object = silent # called with the folder before: what is there already
    ignore: tuple = ('seconds',) # keys of JSON that say how long it took

@pytest.fixture(scope='module')
def jobs(base, exp, pictures, tiny):
    def counted(m, module, name, tell):
        real = getattr(module, name)
        def call(*args, **kw):
            out = real(*args, **kw)
            tell('step')
            return out
        m.setattr(module, name, call)

    def extraction(folder, tell):
        class Counted(backbones.Backbone):
            def __call__(self, *args):
                tell('step')
                return super().__call__(*args)
        features.extract(pictures, Counted(**vars(tiny)), 'fp32', bs=1, root=folder, shard=4)

    def training(folder, tell):
        plan = Plan(PaperConfig(6, 5, dim=8, heads=2, prototype='wagp'), [exp.episodes('train', 1, ways=2)], Schedule(steps=6, warmup=1, every=2))
        validate = train.validator([exp.episodes('val', 1, ways=2, queries=2)], exp, 2)
        with pytest.MonkeyPatch.context() as m:
            counted(m, train, 'train_step', tell)
            m.setattr(studies, 'make_kinds', silent)
            m.setattr(studies, 'fit', lambda method, exp, seed, quick, say, run: train.train(plan, exp, run, seed, validate))
            studies.fit_into('paper', exp, folder/'run', say=silent)

    eps, words = toy(base/'toy')
    def tuning(folder, tell):
        with pytest.MonkeyPatch.context() as m:
            counted(m, finetune, 'tuning_step', tell)
            finetune.finetune(Plan(TINY, [eps], Schedule(steps=4, warmup=1, every=2)), words, folder/'run', how=finetune.Tuning(5, workers=1))

    def comparing(folder, tell):
        with pytest.MonkeyPatch.context() as m:
            m.setattr(studies, 'choose_backbone', lambda *_: tiny)
            m.setattr(studies, 'prepare', lambda *_, **kw: exp)
            how = studies.Comparison([1], 4, options=studies.Options(queries=2))
            studies.compare([], ['chance'], how=how, out=folder/'results.json', say=silent)

    make(base/'photos')
    def tagging(folder, tell):
        fake = Fake()
        tag_photos(fake, base/'photos', folder/'tags.csv')
        for _ in fake.decoded: tell('step')
    def preparing(folder, tell):
        images = ImageSet(pictures, ['a'], np.ones((6, 1), bool), 'own')
        with pytest.MonkeyPatch.context() as m:
            counted(m, prepare, 'check_image', tell)
            prepare.prepare_tree(images, folder/'m.jsonl', workers=1)
    def scenes(folder, tell): make_scenes(folder, 0, (1, 1, 1), (1, 1, 1), 32, 2)
    def build(tmp):
        tmp.mkdir()
        for name in 'ab': (tmp/name).write_text(name*100)
    def building(folder, tell): build_once(folder/'built', build)
    def old(folder): write_json(folder/'a.json', dict(a='old'))
    def writing(folder, tell): write_json(folder/'a.json', dict(a=1, b='x'*100))

    with contextlib.redirect_stdout(io.StringIO()): t = tagger.Tagger(words=False).fit(pictures[:2], ['a', 'b'])
    def saving(folder, tell): t.save(folder/'t')
    def older(folder):
        t.save(folder/'t')
        (folder/'t'/'tagger.json').write_text('old')
    return dict(extract=Job(extraction, 6, 3), train=Job(training, 6, 2), finetune=Job(tuning, 4, 2), compare=Job(comparing),
                tag=Job(tagging, 40, 7), prepare=Job(preparing, 6, 6), scenes=Job(scenes), build=Job(building),
                write=Job(writing, begin=old), save=Job(saving, begin=older))

NAMES = 'extract train finetune compare tag prepare scenes build write save'.split()

def content(folder, ignore=()):
    "All files of a folder; hidden ones too, but for locks."
    def clean(d):
        if isinstance(d, dict): return {k: clean(v) for k, v in d.items() if k not in ignore}
        return [clean(x) for x in d] if isinstance(d, list) else d
    out = {}
    for p in sorted(folder.rglob('*')):
        if p.is_dir() or p.suffix=='.lock': continue
        data = p.read_bytes()
        out[p.relative_to(folder).as_posix()] = clean(json.loads(data)) if p.name=='results.json' else data
    return out

@pytest.fixture(scope='module')
def whole(jobs, base):
    "What a job makes that nothing stops, and the names of its points."
    known = {}
    def run(name):
        if name not in known:
            folder = base/'whole'/name
            folder.mkdir(parents=True, exist_ok=True)
            jobs[name].begin(folder)
            names = []
            steps = []
            with points(lambda n, half: names.append(n)): jobs[name].do(folder, steps.append)
            assert len(steps)==jobs[name].steps
            known[name] = content(folder, jobs[name].ignore), names
        return known[name]
    return run

def killed_at(k):
    def at(name, half):
        nonlocal k
        k -= 1
        if k==-1:
            half()
            os._exit(9)
    return at

MOST = dict(finetune=3, train=6, scenes=6, tag=8, prepare=8, extract=10, save=10, compare=6, build=12) # points of a job
MANY = int(os.environ.get('FSIC_KILLS', 1))     # so many times as many points

def some_of(name, n):
    "Points spread over a job, at steps drawn by their number."
    most = MANY*MOST.get(name, n)
    ends = [n*i//most for i in range(most+1)] if most<n else range(n+1)
    return [int(rng('kill', name, a).integers(a, b)) for a, b in zip(ends, ends[1:])]

KILLS = []

@pytest.mark.parametrize('name', NAMES)
def test_killed_and_continued(name, jobs, whole, tmp_path):
    job = jobs[name]
    right, names = whole(name)
    for k in some_of(name, len(names)):
        folder = tmp_path/f'{k}'
        folder.mkdir()
        job.begin(folder)
        def killed(tell):
            with points(killed_at(k)): job.do(folder, tell)
        code, first = wait(*child(killed))
        where = f'{name}, killed at point {k}, {names[k]}'
        assert code==9, (where, code, first)
        again = []
        job.do(folder, again.append)
        assert content(folder, job.ignore)==right, where
        assert len(first)+len(again)-job.steps<=job.lost, (where, len(first), len(again))
        KILLS.append(where)
        shutil.rmtree(folder)

def test_enough_were_killed(): assert len(KILLS)>=50 or len(KILLS)==0    # 0: the tests run one by one


# --- a full disk --------------------------------------------------------------------------------------------------------------

def full_at(k):
    "From point k on nothing more can be written."
    def at(name, half):
        nonlocal k
        k -= 1
        if k<0 and name not in ENDS:
            half()
            raise OSError(errno.ENOSPC, 'No space left on device')
    return at

@pytest.mark.parametrize('name', NAMES)
def test_a_full_disk_is_a_sentence(name, jobs, whole, tmp_path):
    job = jobs[name]
    right, names = whole(name)
    grows = [k for k, n in enumerate(names) if n not in ENDS]
    for k in [grows[i] for i in some_of(name, len(grows))[::2]]:
        folder = tmp_path/f'{k}'
        folder.mkdir()
        job.begin(folder)
        where = f'{name}, full at point {k}, {names[k]}'
        try:
            with points(full_at(k)): job.do(folder, silent)
        except FsicError as e: assert str(e).count('\n')==0 and str(e).endswith('.'), (where, e)
        except Exception as e: raise AssertionError(where) from e
        job.do(folder, silent)
        assert content(folder, job.ignore)==right, where
        shutil.rmtree(folder)

def fill(folder, keep):
    "Fill the disk of a folder, but for some bytes."
    free = shutil.disk_usage(folder).free
    (folder/'ballast').write_bytes(b'\0'*max(0, free-keep))

@pytest.mark.skipif(not os.environ.get('FSIC_SLOW') or not hasattr(os, 'geteuid') or os.geteuid()!=0, reason='mounts a small disk: FSIC_SLOW=1, as root')
@pytest.mark.parametrize('name', NAMES)
def test_a_disk_that_is_really_full(name, jobs, whole, tmp_path):
    disk = tmp_path/'disk'
    disk.mkdir()
    if subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=64m', 'none', disk], capture_output=True).returncode: pytest.skip('nothing can be mounted here')
    try:
        right, _ = whole(name)
        for keep in (0, 4096, 20_000, 100_000, 400_000):
            folder = disk/str(keep)
            folder.mkdir()
            jobs[name].begin(folder)
            fill(disk, keep)
            with contextlib.suppress(FsicError): jobs[name].do(folder, silent)
            (disk/'ballast').unlink()
            jobs[name].do(folder, silent)
            assert content(folder, jobs[name].ignore)==right
            shutil.rmtree(folder)
    finally: subprocess.run(['umount', disk])


# --- two at once ----------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('name', NAMES)
def test_two_at_once(name, jobs, whole, tmp_path):
    "Both end well, and what can be divided is done once."
    job = jobs[name]
    job.begin(tmp_path)
    both = [child(lambda tell: job.do(tmp_path, tell)) for _ in range(2)]
    ends = [wait(*c) for c in both]
    told = [x for _, said in ends for x in said if x!='step']
    if name=='prepare':                       # a second run refuses at once
        assert all('another run is writing this manifest' in x for x in told)
        job.do(tmp_path, silent)
    else: assert [code for code, _ in ends]==[0, 0], told
    assert content(tmp_path, job.ignore)==whole(name)[0]
    if name in ('extract', 'train', 'finetune'): assert sum(len(said) for _, said in ends)==job.steps
