"`Tagger`: what it promises (order, save and load, yes and no and unknown), every kind of input, damaged taggers, reasons."
import io, json, os, pickle, shutil, tracemalloc
from pathlib import Path
import numpy as np, pandas as pd, pytest, torch
from hypothesis import HealthCheck, given, settings, strategies as st
from PIL import Image, ImageOps
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
import fsic_nb
from fsic_nb import tagger as module
from fsic_nb.core import FsicError
from fsic_nb.data import ImageSet
from fsic_nb.examples import list_photos
from fsic_nb.space import photographs

Tagger = fsic_nb.Tagger
skimage = pytest.importorskip('skimage', reason='the photographs in scikit-image serve as photos')
KINDS = dict(cat='chelsea.png', coffee='coffee.png', rocket='rocket.jpg')


def crop(kind, seed):
    "A part of a photograph."
    im = Image.open(Path(skimage.__file__).parent/'data'/KINDS[kind]).convert('RGB')
    rng = np.random.default_rng([seed, *kind.encode()])
    w, h = (int(s*rng.uniform(.5, .9)) for s in im.size)
    x, y = int(rng.integers(im.width-w)), int(rng.integers(im.height-h))
    return im.crop((x, y, x+w, y+h)).resize((120, 96))

@pytest.fixture(scope='module')
def crops(tmp_path_factory):
    "Twelve files, four of each kind."
    folder = tmp_path_factory.mktemp('crops')
    for kind in KINDS:
        for i in range(4): crop(kind, i).save(folder/f'{kind}{i}.png')
    return sorted(folder.iterdir())

@pytest.fixture(scope='module')
def quick():
    "The packaged space is loaded once, each image is seen by the network once, each name read once."
    space = photographs()
    read, compare = module._read_some, type(space).compare
    seen, names = {}, {}
    def read_again(bb, pairs, skip, thumbs):
        out = []
        for pair in pairs:
            at = str(pair[0]), skip, thumbs
            if not isinstance(pair[0], (str, Path)) or 'crops' not in str(pair[0]): out += read(bb, [pair], skip, thumbs)
            else:
                if at not in seen: seen[at] = read(bb, [pair], skip, thumbs)
                out += seen[at]
        return out
    def compare_again(self, tags):
        for t in tags:
            if t not in names: names[t] = compare(self, [t])
        return torch.cat([names[t] for t in tags]) if tags else compare(self, [])
    with pytest.MonkeyPatch.context() as m:
        m.setattr(module, 'photographs', lambda: space)
        m.setattr(module, '_read_some', read_again)
        m.setattr(type(space), 'compare', compare_again)
        yield space

pytestmark = pytest.mark.usefixtures('quick')

def fit(paths, labels, **params): return Tagger(**params).fit(paths, labels)
def probs(t, paths): return t.predict_proba(list(paths)).to_numpy()
def same(a, b, paths):
    assert a.tags_==b.tags_ and a.counts_==b.counts_
    assert np.array_equal(probs(a, paths), probs(b, paths)) and np.array_equal(a.thresholds_, b.thresholds_)

def table(rows, tags): return pd.DataFrame(rows, columns=tags, dtype=float)

@pytest.fixture(scope='module')
def three(crops, quick):
    "A tagger of three tags with two examples each, and the other photos."
    some = [p for p in crops if p.stem[-1] in '01']
    return fit(some, [p.stem[:-1] for p in some]), [p for p in crops if p.stem[-1] in '23']


# --- the order of what is said does not matter -----------------------------------------------------------------------------

TAGS = ['cat', 'coffee', 'rocket', '7', 'qzx', 'собака']
SAID = st.lists(st.lists(st.sampled_from([1, 0, np.nan]), min_size=len(TAGS), max_size=len(TAGS)), min_size=12, max_size=12)
UNLISTED = st.sampled_from(['no', 'unlikely', 'unknown'])

def some_tag(rows): return any(x==x for row in rows for x in row)

@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(SAID, UNLISTED, st.randoms(use_true_random=False), st.booleans())
def test_at_once_in_parts_and_from_disk(crops, tmp_path_factory, rows, unlisted, rnd, words):
    if not some_tag(rows): return
    params = dict(unlisted=unlisted, words=words)
    one = fit(crops, table(rows, TAGS), **params)
    order, columns = list(range(12)), list(range(len(TAGS)))
    rnd.shuffle(order)
    rnd.shuffle(columns)
    begin = next(i for i in order if some_tag([rows[i]]))   # there must be something to begin with
    order = [begin, *(i for i in order if i!=begin)]
    two = Tagger(**params)
    while order:
        part, order = order[:(n := rnd.randint(1, 5))], order[n:]
        two.partial_fit([crops[i] for i in part], table([[rows[i][c] for c in columns] for i in part], [TAGS[c] for c in columns]))
    same(one, two, crops)
    folder = tmp_path_factory.mktemp('saved')/'t'
    two.save(folder)
    three = Tagger.load(folder)
    same(one, three, crops)
    assert three.get_params()==one.get_params() and {(e.key, e.yes, e.no) for e in three.examples_}=={(e.key, e.yes, e.no) for e in one.examples_}
    again = three.partial_fit(crops, table(rows, TAGS))    # the same once more changes nothing
    same(one, again, crops)
    shutil.rmtree(folder.parent)

@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(SAID, UNLISTED, st.integers(0, len(TAGS)-1))
def test_forget_is_fit_without(crops, rows, unlisted, gone):
    names = [t for i, t in enumerate(TAGS) if i!=gone]
    less = [[x for i, x in enumerate(row) if i!=gone] for row in rows]
    kept = [i for i, (row, short) in enumerate(zip(rows, less)) if some_tag([short]) or not some_tag([row])]
    said = {TAGS[i] for row in rows for i, x in enumerate(row) if x==x}
    if TAGS[gone] not in said or len(said)<2: return
    one = fit(crops, table(rows, TAGS), unlisted=unlisted).forget(TAGS[gone])
    same(one, fit([crops[i] for i in kept], table([less[i] for i in kept], names), unlisted=unlisted), crops)
    same(one.partial_fit(crops, table(rows, TAGS)), fit(crops, table(rows, TAGS), unlisted=unlisted), crops)

def test_forget_leaves_out_images_of_no_other_tag(crops):
    one = fit(crops[:6], [['qzx'], ['qzx'], ['cat'], ['cat', 'qzx'], [], ['cat']]).forget('qzx')
    assert len(one.examples_)==4                              # the one that never had a tag says so still
    same(one, fit(crops[2:6], [['cat'], ['cat'], [], ['cat']]), crops)

def test_order_in_lists_and_copies(crops, tmp_path):
    labels = [[p.stem[:-1], 'thing'] for p in crops]
    one = fit(crops, labels)
    two = fit(crops[::-1], [l[::-1] for l in labels[::-1]])
    same(one, two, crops)
    assert [e.key for e in one.examples_]==[e.key for e in two.examples_]    # else sums differ in their last bits, sometimes
    shutil.copy(crops[0], tmp_path/'copy.png')              # the same image under another name: one example
    two = fit([*crops, tmp_path/'copy.png'], [*labels, ['cat']])
    assert len(two.examples_)==12 and two.counts_['cat']==4
    same(one, two, crops)

def test_a_file_in_two_folders_has_two_tags(crops, tmp_path):
    for tag, some in dict(cat=crops[:2], animal=crops[1:3]).items():
        (tmp_path/tag).mkdir()
        for p in some: shutil.copy(p, tmp_path/tag/p.name)
    t = Tagger.from_examples(tmp_path)
    assert t.counts_=={'animal': 2, 'cat': 2} and len(t.examples_)==3
    assert [sorted(e.yes) for e in t.examples_ if len(e.yes)==2]==[['animal', 'cat']]


# --- yes, no and unknown ---------------------------------------------------------------------------------------------------

def test_unknown_means_unknown(crops):
    "With unlisted='unknown' what is said of one tag changes nothing for another one whose name says nothing."
    rows = np.full((12, 2), np.nan)
    rows[:4, 0], rows[4:8, 0] = 1, 0
    alone = fit(crops, table(rows[:, :1], ['qzx']), unlisted='unknown')
    p = alone.predict_proba(crops)
    rows[:, 1] = [1, 0]*6
    both = fit(crops, table(rows, ['qzx', 'xzq']), unlisted='unknown')
    assert np.allclose(both.solved_.correction.P[0], alone.solved_.correction.P[0], atol=1e-6)
    assert np.allclose(both.solved_.left[:, 0], alone.solved_.left[:, 0], atol=1e-6, equal_nan=True)
    # the curve knows how many tags an image lists, so only the order of the images is the same
    q = both.predict_proba(crops)
    assert list(p.qzx.argsort())==list(q.qzx.argsort())
    no = fit(crops, table(rows, ['qzx', 'xzq']), unlisted='no')
    assert not np.allclose(no.solved_.correction.P[0], both.solved_.correction.P[0], atol=1e-3)

def test_no_counts_and_corrections_override(crops):
    t = fit(crops[:4], ['cat']*4, unlisted='unknown')
    before = t.predict_proba(crops)['cat']
    t.partial_fit(crops[8:11], table([[0]]*3, ['cat']))
    after = t.predict_proba(crops)['cat']
    assert after.iloc[11]<before.iloc[11] and t.counts_=={'cat': 4} and len(t.examples_)==7
    t.partial_fit([crops[8]], ['cat'])                        # it is one, after all
    assert t.counts_=={'cat': 5} and len(t.examples_)==7 and t.predict_proba(crops)['cat'].iloc[8]>after.iloc[8]
    t.partial_fit([crops[8]], table([[0]], ['cat']))
    assert np.array_equal(t.predict_proba(crops)['cat'], after)

@pytest.mark.parametrize('unlisted', ['no', 'unlikely', 'unknown'])
@pytest.mark.parametrize('tag', ['cat', 'qzx'])
@pytest.mark.parametrize('rows', [[1], [0], [1, 1], [0, 0], [1, 0], [1]*6, [1]+[0]*5])
def test_few_examples_of_one_tag(crops, unlisted, tag, rows):
    n = len(rows)
    t = fit(crops[:n], table([[x] for x in rows], [tag]), unlisted=unlisted)
    p = probs(t, crops)
    assert ((p>0)&(p<1)).all() and ((t.thresholds_>0)&(t.thresholds_<1)).all() and t.counts_=={tag: sum(rows)}
    if set(rows)=={1} and n>1: assert p[:4].mean()>p[4:].mean()   # cats come first
    if 1 in rows: assert p[rows.index(1)]>p[8:].mean()

def test_thirty_tags_and_many_examples(crops):
    tags = [f'tag {i}' for i in range(30)]
    t = fit(crops, [[tags[(i*7+k)%30] for k in range(5)] for i in range(12)])
    assert len(t.tags_)==30 and np.isfinite(probs(t, crops)).all()
    heats, spoke = (getattr(next(t.stream(crops[:1], explain=True)), x)[0] for x in ('heats', 'spoke'))
    assert 1<=len(heats)<=6 and heats.keys()==spoke.keys()
    rng = np.random.default_rng(0)
    many = [Image.fromarray(rng.integers(0, 255, (9, 9, 3), dtype=np.uint8)) for _ in range(200)]
    readings = list(t.read(crops[:1]))
    f = readings[0].f.float()
    fake = [module.Example(f'{i}', f'{i}', (f+torch.randn(f.shape, generator=torch.Generator().manual_seed(i))*.1).half(), b'',
                           frozenset({'cat'}), frozenset()) for i in range(200)]
    t = Tagger()
    t._begin()
    t._solve(fake, [], [])
    assert t.counts_=={'cat': 200} and np.isfinite(probs(t, crops)).all() and len(many)==200

def test_a_word_then_examples(crops, capsys):
    t = Tagger().add_tag('cat')
    assert t.counts_=={'cat': 0} and t.evidence_.kinds()==['word'] and 'cat (its name only)' in capsys.readouterr().out
    p = probs(t, crops)[:, 0]
    assert p[:4].min()>p[4:].max()
    same(t.partial_fit(crops, [p.stem[:-1] for p in crops]), fit(crops, [p.stem[:-1] for p in crops]).add_tag('cat'), crops)
    with pytest.raises(FsicError, match='says nothing'): Tagger().add_tag('qzx')
    with pytest.raises(FsicError, match='says nothing'): Tagger(words=False).add_tag('cat')
    with pytest.raises(FsicError, match='also spelt'): t.add_tag('Cat')
    assert t.tags_==['cat', 'coffee', 'rocket']

def test_a_tag_without_positives_has_no_f1(three):
    t, photos = three
    found = t.evaluate(photos, [['cat']]*6, threshold=0)
    assert found.F1.isna().tolist()==[False, True, True] and found.precision.tolist()==[1, 0, 0]

def test_what_is_told(crops, capsys):
    t = fit(crops[:8], ['cat']*2+['qzx']*6)
    out = capsys.readouterr().out
    assert out.count('fewer than 3 examples')==1 and 'cat (2)' in out and 'qzx (6)' not in out and 'names that say nothing here, so examples alone count: qzx' in out
    t.partial_fit(crops[8:9], ['cat'])
    assert capsys.readouterr().out==''                        # nothing new
    t.partial_fit(crops[8:9], ['rocket'])
    assert capsys.readouterr().out=='fewer than 3 examples, so look at the results: rocket (1)\n'


# --- the habits of scikit-learn -----------------------------------------------------------------------------------------------

def test_parameters():
    t = Tagger(unlisted='no', skip=True)
    assert clone(t).get_params()==t.get_params() and repr(t)=="Tagger(skip=True, unlisted='no')"
    assert not [k for k in vars(t) if k.endswith('_')]
    with pytest.raises(ValueError): t.set_params(nonsense=1)

@pytest.mark.parametrize('do', [lambda t: t.predict('x.jpg'), lambda t: t.predict_proba('x.jpg'), lambda t: t.explain('x.jpg', 'cat'), lambda t: t.forget('cat'),
                                lambda t: t.evaluate('x.csv'), lambda t: t.save('x'), lambda t: next(t.stream('x.jpg')), lambda t: t.review('x.jpg')])
def test_not_fitted(do):
    with pytest.raises(NotFittedError, match='call fit, from_examples or add_tag'): do(Tagger())

def test_fit_begins_anew(crops):
    t = fit(crops[:4], ['Cat']*4)
    t.add_tag('zebra')
    t.fit(crops[4:8], ['cat']*4)                              # another spelling than before is no mistake
    same(t, fit(crops[4:8], ['cat']*4), crops)
    same(t.set_params(words=False).fit(crops[:4], ['cat']*4), fit(crops[:4], ['cat']*4, words=False), crops)

def test_a_mistake_leaves_the_tagger_as_it_was(crops, tmp_path):
    (tmp_path/'bad.jpg').write_text('no image')
    t = fit(crops[:8], ['cat']*4+['coffee']*4)
    want = probs(t, crops)
    for do in (lambda: t.fit([tmp_path/'bad.jpg'], ['dog']), lambda: t.partial_fit([crops[8], tmp_path/'bad.jpg'], ['dog', 'dog']), lambda: t.fit(crops[:2], [[], []]),
               lambda: t.partial_fit(crops[:1], ['CAT']), lambda: t.partial_fit(crops[:1], ['a;b']), lambda: t.add_tag('qzx'), lambda: t.forget('dog'), lambda: t.fit('nowhere')):
        with pytest.raises(FsicError): do()
        assert np.array_equal(probs(t, crops), want)
    assert t.partial_fit(crops[8:9], ['cat']).counts_=={'cat': 5, 'coffee': 4}

def test_examples_are_scored_once(crops, monkeypatch):
    t = fit(crops[:8], ['cat']*4+['coffee']*4)
    count, score = [0], type(t.space_).score
    def counted(self, f, q):
        count[0] += len(f)
        return score(self, f, q)
    monkeypatch.setattr(type(t.space_), 'score', counted)
    t.partial_fit(crops[8:9], ['cat'])
    assert count==[1]
    t.partial_fit(crops[9:10], ['rocket'])                    # another tag, so the others' scores change
    assert count==[1+10]
    same(t, fit(crops[:10], ['cat']*4+['coffee']*4+['cat', 'rocket']), crops)

@pytest.mark.parametrize('params, said', [(dict(unlisted='maybe'), 'use no, unlikely, unknown'), (dict(backbone='lite0'), 'call adapt'), (dict(size=64), 'goes with a backbone')])
def test_wrong_parameters(crops, params, said):
    with pytest.raises(FsicError, match=said): fit(crops[:1], ['cat'], **params)


# --- inputs -------------------------------------------------------------------------------------------------------------------

def test_images_of_every_kind(three, tmp_path, monkeypatch):
    t, _ = three
    im = crop('cat', 9)
    im.save(tmp_path/'a.png')
    path = tmp_path/'a.png'
    want = probs(t, [path])
    upside = im.transpose(Image.Transpose.ROTATE_180)
    exif = Image.Exif()
    exif[0x0112] = 3
    upside.save(tmp_path/'turned.png', exif=exif)
    a = np.asarray(im)
    for given in (path, str(path), [path], (str(path),), im, [im], a, [a], im.convert('RGBA'), [np.dstack([a, np.full(a.shape[:2], 255, np.uint8)])], iter([path]), (p for p in [im]),
                  pd.Series([str(path)]), np.array([str(path)]), tmp_path/'turned.png', str(tmp_path/'a.p*g'), ImageSet([path], ['x'], np.ones((1, 1), bool), 'set')):
        assert np.array_equal(t.predict_proba(given).to_numpy(), want), given
    monkeypatch.setenv('HOME', str(tmp_path))
    assert np.array_equal(t.predict_proba('~/a.png').to_numpy(), want)
    grey = np.asarray(im.convert('L'))
    deep = Image.fromarray(grey.astype(np.uint16)*257)
    assert np.allclose(probs(t, [grey]), probs(t, [deep]), atol=1e-6)
    for odd in (a/255, torch.rand(3, 8, 8), None, 3, [None], b'bytes', [io.BytesIO()], Image.fromarray(np.full((9, 9), .4, np.float32))):
        with pytest.raises(FsicError, match='image'): t.predict(odd)
    for empty in ([], tmp_path/'none'):
        (tmp_path/'none').mkdir(exist_ok=True)
        with pytest.raises(FsicError, match='no photos are there'): t.predict(empty)

NAMES = ['a;b,c.png', 'line\nbreak.png', '😀 "so".png', '<script>alert(1)</script>.png'.replace('/', '_'), "it's.png", 'z/nested/deep.png', 'folder.png/inside.png']

def test_names_of_every_kind_and_order(three, crops, tmp_path):
    t, _ = three
    for i, n in enumerate(NAMES):
        (tmp_path/n).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(crops[i], tmp_path/n)
    (tmp_path/'folder.png'/'notes.txt').write_text('no photo')
    p = t.predict_proba(tmp_path)
    assert list(p.index)==sorted(NAMES) and np.array_equal(p.loc[NAMES].to_numpy(), probs(t, crops[:len(NAMES)]))
    assert list(t.predict_proba([tmp_path/n for n in NAMES]).index)==[str(tmp_path/n) for n in NAMES]

def test_unreadable_in_the_middle(three, crops, tmp_path):
    t, _ = three
    for i in range(12): shutil.copy(crops[i], tmp_path/f'{i:02}.png')
    (tmp_path/'02.png').write_text('no image')
    (tmp_path/'07.png').write_bytes(b'')
    (tmp_path/'09.png').write_bytes((tmp_path/'09.png').read_bytes()[:2000])
    with pytest.raises(FsicError, match='02.png'): t.predict_proba(tmp_path)
    for skip in (lambda: list(t.stream(tmp_path, skip=True)), lambda: list(clone_of(t, skip=True).stream(tmp_path))):
        found = skip()
        names, p, errors = [n for b in found for n in b.names], np.concatenate([b.p for b in found]), [e for b in found for e in b.errors]
        assert names==[f'{i:02}.png' for i in range(12)] and [i for i, e in enumerate(errors) if e]==[2, 7, 9] and np.isnan(p[[2, 7, 9]]).all()
        good = [i for i in range(12) if i not in (2, 7, 9)]
        assert np.array_equal(p[good], probs(t, [crops[i] for i in good]))
    u = clone_of(t, skip=True)
    assert u.predict(tmp_path).tags.iloc[2]==[] and list(u.predict(tmp_path, 'top1').tags.str.len())==[0 if i in (2, 7, 9) else 1 for i in range(12)]

def clone_of(t, **params):
    "The same examples in a tagger of other parameters."
    u = clone(t).set_params(**params)
    u._begin()
    return u._solve(t.examples_, t.words_, t.tags_ if hasattr(u, 'tags_') else [])

def test_unreadable_examples(crops, tmp_path, capsys):
    (tmp_path/'bad.png').write_text('no image')
    t = fit([crops[0], tmp_path/'bad.png', crops[4]], ['cat', 'cat', 'coffee'], skip=True)
    assert t.counts_=={'cat': 1, 'coffee': 1} and 'left out: ' in capsys.readouterr().out
    with pytest.raises(FsicError, match='bad.png'): fit([crops[0], tmp_path/'bad.png'], ['cat', 'cat'])

@pytest.mark.parametrize('labels, said', [
    ('cat', 'give a list'), ({'a': 1, 'b': 2}, 'give a list'), (['cat'], '1 for 2'), ([1, 2], 'no list of tags'), ([[1], [2]], 'expected a word'), (['cat', None], 'no list of tags'), ([[], []], 'no tag'),
    (np.eye(2, dtype=bool), 'pandas.DataFrame'), (pd.DataFrame({'cat': ['yes', 'no']}), 'write 1 for yes'), (pd.DataFrame({'cat': [2, 0]}), 'write 1 for yes'), (pd.DataFrame(np.eye(2)), 'expected a word'),
    (pd.DataFrame(np.eye(2), columns=['a', 'a']), 'twice'), (['a;b', 'c'], 'semicolon'), (['a\nb', 'c'], 'control character .*give it another name'), (['a\u202eb', 'c'], 'RIGHT-TO-LEFT OVERRIDE'), (['Cat', 'cat'], 'also spelt'),
    (['error', 'c'], 'column of the table'), (['a'*101, 'c'], '1 to 100 letters'), ([True, False], 'no list of tags')])
def test_wrong_labels(crops, labels, said):
    with pytest.raises(FsicError, match=said) as e: fit(crops[:2], labels)
    assert '\n' not in str(e.value)

@pytest.mark.parametrize('labels', [['cat', 'dog'], [['cat'], ['dog']], [{'cat'}, ('dog',)], np.array(['cat', 'dog']), pd.Series(['cat', 'dog'], index=[7, 9]), (x for x in ('cat', 'dog')), [' cat', 'dog '],
                                    pd.DataFrame({'cat': [True, False], 'dog': [False, True]}), pd.DataFrame({'cat': pd.array([1, None], 'Int64'), 'dog': [0, 1]})])
def test_labels_of_every_kind(crops, labels):
    t = fit(crops[:2], labels, unlisted='unknown')
    assert t.counts_=={'cat': 1, 'dog': 1} and [sorted(e.yes) for e in sorted(t.examples_, key=lambda e: e.name)]==[['cat'], ['dog']]

def test_an_image_set_with_unknown(crops):
    unknown = np.array([[False, True], [False, False], [True, False]])
    images = ImageSet(crops[:3], ['cat', 'dog'], np.array([[1, 0], [0, 1], [0, 0]], bool), 'set', unknown=unknown)
    t = Tagger().fit(images)
    assert {e.name: (sorted(e.yes), sorted(e.no)) for e in t.examples_}=={str(crops[0]): (['cat'], []), str(crops[1]): (['dog'], ['cat']), str(crops[2]): ([], ['dog'])}

@pytest.mark.parametrize('tags', [['собака', '猫'], ['🐱', 'naïve café'], ['a,b', '"c" <i>'], ['7', 'qzx']])
def test_tags_of_every_kind(crops, tags, tmp_path):
    t = fit(crops[:8], [tags[0]]*4+[tags[1]]*4)
    t.save(tmp_path/'t')
    u = Tagger.load(tmp_path/'t')
    same(t, u, crops)
    assert u.tags_==sorted(tags) and u.predict(crops[:1]).tags.iloc[0] in ([], [tags[0]], [tags[1]], sorted(tags))


# --- probabilities become tags --------------------------------------------------------------------------------------------------

def test_thresholds(three):
    t, photos = three
    p = t.predict_proba(photos)
    for th in ('auto', 0, .5, 1, '0.5', 'top1', 'top99'):
        got = t.predict(photos, threshold=th)
        many = got.tags.str.len()
        if str(th).startswith('top'):
            assert (many==min(int(th[3:]), 3)).all()
            assert th!='top1' or [x[0] for x in got.tags]==list(p.idxmax(axis=1))
        else:
            cut = t.thresholds_ if th=='auto' else float(th)
            assert list(many)==list((p>=cut).sum(axis=1))
        assert not any(set(a)&set(b) for a, b in zip(got.tags, got.unsure))
    right = [p.stem[:-1] in x for p, x in zip(photos, t.predict(photos).tags)]
    assert np.mean(right)>.6
    few, more = (t.predict(photos, precision=x).tags.str.len().sum() for x in (.99, .2))
    assert few<=more

@pytest.mark.parametrize('how, said', [(dict(threshold=x), 'threshold') for x in ('top0', 'top', 'top-1', 'x', 1.5, -1, float('nan'), None, [.5])]+[(dict(precision=x), 'precision') for x in (0, 1, 2, 90, float('nan'))])
def test_nonsense_thresholds(three, how, said):
    t, _ = three
    with pytest.raises(FsicError, match=said): t.predict('nowhere', **how)      # before a photo is looked for

def test_evaluate(three, capsys):
    t, photos = three
    truth = [[p.stem[:-1], *(['unheard of'] if i==0 else [])] for i, p in enumerate(photos)]
    found = t.evaluate(photos, truth)
    assert 'unheard of' in capsys.readouterr().out and list(found.index)==t.tags_ and (found.images==6).all() and (found.positives==2).all()
    p, y = t.predict_proba(photos), np.array([[k in x for k in t.tags_] for x in truth])
    yes = p.to_numpy()>=t.thresholds_
    for i, tag in enumerate(t.tags_):
        hits = (yes&y)[:, i].sum()
        assert found.recall[tag]==hits/2 and (not yes[:, i].any() or found.precision[tag]==hits/yes[:, i].sum())
    blanks = table([[1], [0], [np.nan], [np.nan], [1], [0]], ['cat'])
    assert t.evaluate(photos, blanks).loc['cat', ['images', 'positives']].tolist()==[4, 2]
    assert (t.evaluate(photos, [[]]*6).positives==0).all()
    with pytest.raises(FsicError, match='none of its tags'): t.evaluate(photos, ['dog']*6)


# --- why -------------------------------------------------------------------------------------------------------------------------

def test_reasons_add_up(three):
    "The score is an offset, what the name says, and the examples; its linear part is divided among the places."
    t, photos = three
    [r] = t.read(photos[:1])
    s, v = t._scored([r])
    c = t.solved_.correction
    n = len(t.examples_)
    rows = torch.cat([t.v_, t.space_.ground])
    terms = t.solved_.z.double()@(rows.double()@v[0].double())
    assert torch.allclose((c.trust*s[0]+terms.float()+c.b), t.score([r])[0][0], atol=1e-4)
    heats = t.heats([r])[0].reshape(3, -1).sum(-1)
    directions = t._directions()
    shares = t.space_.share_places(r.f[None].float(), directions)[0]
    assert torch.allclose(shares.sum(-1), directions@v[0], atol=1e-4) and np.allclose(heats, shares.sum(-1), rtol=.3, atol=.05)
    for i in range(3):
        found = t.speakers(s[0], v[0], i)
        shares = [x for _, x in found]
        assert all(0<x<=1 for x in shares) and sum(shares)<=1.0005 and all(j==module.ITS_NAME or 0<=j<n for j, _ in found)
        assert all(t.tags_[i] in t.examples_[j].yes for j, _ in found if j!=module.ITS_NAME)

def test_explain(three, tmp_path):
    t, photos = three
    tag = photos[0].stem[:-1]
    for image in (photos[0], Image.open(photos[0]), np.asarray(Image.open(photos[0])), [photos[0]]):
        why = t.explain(image, tag)
        assert why.p==t.predict_proba(photos[:1])[tag].iloc[0] and why.threshold==t.thresholds_[t.tags_.index(tag)]
    why.save(tmp_path/'why.png')
    assert Image.open(tmp_path/'why.png').width>200
    Tagger().add_tag('cat').explain(photos[0], 'cat').save(tmp_path/'word.png')
    with pytest.raises(FsicError, match='no tag is called'): t.explain(photos[0], 'dog')
    with pytest.raises(FsicError, match='give one'): t.explain(photos[:2], 'cat')

def test_memory_of_a_stream_is_flat(three):
    "What Python allocates; a reading that was kept would be 100 kB an image."
    t, photos = three
    tracemalloc.start()
    def peak(n):
        many = list_photos(photos)
        many = type(many)(many.sources*(n//6), many.names*(n//6))
        tracemalloc.reset_peak()
        count = sum(len(b.names) for b in t.stream(many))
        assert count==n
        return tracemalloc.get_traced_memory()[1]
    peak(60)
    few, lots = peak(60), peak(300)
    tracemalloc.stop()
    assert lots-few<240*2000, (few, lots)                     # a name and a path


# --- kept on disk -------------------------------------------------------------------------------------------------------------------

@pytest.fixture(scope='module')
def saved(three, tmp_path_factory):
    folder = tmp_path_factory.mktemp('saved')/'good'
    three[0].save(folder)
    return folder

def test_saving_replaces_only_a_tagger(three, tmp_path):
    t, _ = three
    t.save(tmp_path/'t')
    t.save(tmp_path/'t')
    (tmp_path/'link').symlink_to(tmp_path/'t')
    t.save(tmp_path/'link')
    assert (tmp_path/'link').is_symlink() and Tagger.load(tmp_path/'link').tags_==t.tags_
    (tmp_path/'t'/'tags.csv').write_text('mine')
    for place in (tmp_path/'t', tmp_path, tmp_path/'link'):
        with pytest.raises(FsicError, match='something else in it'): t.save(place)
    assert (tmp_path/'t'/'tags.csv').read_text()=='mine'
    with pytest.raises(FsicError, match='is a file'): t.save(tmp_path/'t'/'tags.csv')
    with pytest.raises(FsicError, match='cannot be written'): t.save(tmp_path/'t'/'tags.csv'/'deeper')
    assert sorted(os.listdir(tmp_path))==['link', 't']
    (tmp_path/'t'/'tags.csv').unlink()
    (tmp_path/'t'/'tagger.json').write_text('damaged')
    t.save(tmp_path/'t')                                       # a damaged tagger can be fitted again
    assert Tagger.load(tmp_path/'t').tags_==t.tags_

class Bomb:
    def __reduce__(self): return os._exit, (66,)

def edit_json(change):
    def do(folder):
        d = json.loads((folder/'tagger.json').read_text())
        change(d)
        (folder/'tagger.json').write_text(json.dumps(d))
    return do

def edit_tensors(change, name='examples.safetensors'):
    def do(folder):
        with safe_open(folder/name, 'pt') as f: about = f.metadata()
        d = load_file(folder/name)
        change(d)
        save_file({k: x.contiguous() for k, x in d.items()}, folder/name, about)
    return do

def edit_space(change):
    def do(folder):
        name = folder/'space.safetensors'
        with safe_open(name, 'pt') as f: about = json.loads(f.metadata()['space'])
        d = load_file(name)
        change(about)
        save_file(d, name, dict(space=json.dumps(about)))
    return do

def nan_in(k, value=float('nan')): return lambda d: d[k].view(-1)[:1].fill_(value)
def put(k, value): return lambda d: d.update({k: value(d[k]) if callable(value) else value})
def first(**kw): return lambda d: d['examples'][0].update(kw)
def param(**kw): return lambda d: d['params'].update(kw)

DAMAGE = {}
for _n in ('tagger.json', 'examples.safetensors', 'space.safetensors'):
    DAMAGE |= {f'{_n} {k}': f for k, f in {
        'is missing': lambda b, n=_n: (b/n).unlink(), 'is empty': lambda b, n=_n: (b/n).write_bytes(b''), 'is cut early': lambda b, n=_n: (b/n).write_bytes((b/n).read_bytes()[:90]),
        'is cut late': lambda b, n=_n: (b/n).write_bytes((b/n).read_bytes()[:-9]), 'is a pickle': lambda b, n=_n: (b/n).write_bytes(pickle.dumps(Bomb())),
        'is of torch': lambda b, n=_n: torch.save(Bomb(), b/n), 'is a folder': lambda b, n=_n: ((b/n).unlink(), (b/n).mkdir()), 'leads to itself': lambda b, n=_n: ((b/n).unlink(), (b/n).symlink_to(b/n)),
        'is of zeros': lambda b, n=_n: (b/n).write_bytes(b'\0'*500)}.items()}
DAMAGE |= {f'json {k}': edit_json(f) for k, f in {
    'has more': put('x', 1), 'other form': lambda d: d.update(form='fsic_nb tagger 99'), 'unlisted a list': param(unlisted=['no']), 'unlisted odd': param(unlisted='maybe'),
    'more parameters': param(evil=1), 'backbone odd': param(backbone='resnet50'), 'size odd': param(size='big'), 'yes numbers': first(yes=[1]), 'yes nested': first(yes=[['cat']]), 'yes with blanks': first(yes=[' cat ']),
    'thumb negative': first(thumb=-5), 'thumb huge': first(thumb=10**30), 'thumb bool': first(thumb=True), 'key twice': lambda d: first(key=d['examples'][1]['key'])(d), 'words odd': lambda d: d.update(words=[1]),
    'tags in another order': lambda d: d['tags'].reverse(), 'tags nested': lambda d: d.update(tags=[['a']]), 'more tags': lambda d: d['tags'].append('zz'), 'no examples': lambda d: d.update(examples=[]),
    'an example less': lambda d: d['examples'].pop()}.items()}
DAMAGE |= {'json deep': lambda b: (b/'tagger.json').write_text('['*100000), 'json long number': lambda b: (b/'tagger.json').write_text('1'*5000), 'json a list': lambda b: (b/'tagger.json').write_text('[]'),
           'swapped': lambda b: shutil.copy(b/'space.safetensors', b/'examples.safetensors'), 'swapped back': lambda b: shutil.copy(b/'examples.safetensors', b/'space.safetensors')}
DAMAGE |= {f'numbers {k}': edit_tensors(f) for k, f in {
    'nan': nan_in('f'), 'inf': nan_in('f', float('inf')), 'float64': put('f', lambda x: x.double()), 'int': put('f', lambda x: x.int()), 'fp8': put('f', lambda x: x.to(torch.float8_e4m3fn)), 'bf16': put('f', lambda x: x.bfloat16()),
    'shape': put('f', lambda x: x[:, :5]), 'fewer': put('f', lambda x: x[1:]), 'more tensors': lambda d: d.update(z=torch.ones(2)), 'no cos': lambda d: d.pop('cos'), 'cos nan': nan_in('cos'), 'cos int': put('cos', lambda x: x.int()),
    'cos huge': put('cos', lambda x: x*1e30), 'cos complex': put('cos', lambda x: x.to(torch.complex64)), 'thumbs float': put('thumbs', lambda x: x.float()), 'thumbs less': put('thumbs', lambda x: x[1:])}.items()}
DAMAGE |= {f'space {k}': edit_space(f) for k, f in {
    'other form': put('form', 'x'), 'backbone unknown': put('backbone', 'nope'), 'backbone a path': put('backbone', '/etc/passwd'), 'size huge': put('size', 10**7), 'size negative': put('size', -3), 'size 0': put('size', 0),
    'key': put('key', 'x'), 'prior empty': put('prior', {}), 'prior nan': lambda a: a['prior'].update(word=[float('nan')]*4), 'prior huge': lambda a: a['prior'].update(both=[1e300]*4), 'prior text': lambda a: a['prior'].update(both=['1']*4)}.items()}
DAMAGE |= {f'space {k} {what}': edit_tensors(f, 'space.safetensors') for k in ('proj.weight', 'proj.bias', 'ground', 'vocabulary.mean', 'rates') for what, f in dict(
    nan=nan_in(k), gone=lambda d, k=k: d.pop(k), scalar=put(k, torch.tensor(1.))).items()}
DAMAGE |= {'space rates zero': edit_tensors(lambda d: d['rates'].zero_(), 'space.safetensors'), 'space deep': lambda b: save_file(load_file(b/'space.safetensors'), b/'space.safetensors', dict(space='['*100000))}

@pytest.mark.parametrize('what', DAMAGE)
def test_damaged_taggers(saved, tmp_path, what):
    shutil.copytree(saved, tmp_path/'t')
    DAMAGE[what](tmp_path/'t')
    with pytest.raises(FsicError) as e: Tagger.load(tmp_path/'t')
    assert '\n' not in str(e.value) and str(e.value).endswith('.') and len(str(e.value))<400

@pytest.mark.parametrize('place', ['nowhere', 'file'])
def test_no_tagger(tmp_path, place):
    (tmp_path/'file').write_text('x')
    with pytest.raises(FsicError, match='no tagger is there'): Tagger.load(tmp_path/place)

def test_what_loading_does_not_mind(three, saved, tmp_path):
    "Links to the files, names of any kind: they are only shown."
    t, photos = three
    (tmp_path/'t').mkdir()
    for p in saved.iterdir(): (tmp_path/'t'/p.name).symlink_to(p)
    same(t, Tagger.load(str(tmp_path/'t')), photos)
    shutil.copytree(saved, tmp_path/'u')
    (tmp_path/'u'/'sums.json').unlink()
    edit_json(first(name='../../etc/passwd\n<script>'))(tmp_path/'u')
    same(t, Tagger.load(tmp_path/'u'), photos)
