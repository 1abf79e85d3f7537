"Word vectors: every file shape, every kind of damage, and the label sets people use."
import gzip, re, struct, subprocess, sys, unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from fsic_nb import words as W
from fsic_nb.core import FsicError
from fsic_nb.words import JOINED, TOP, detect_format, find_words, known_labels, label_vectors, load_words, suggest, to_keyed_vectors, tokens

VOC = '''aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person pottedplant sheep sofa
train tvmonitor'''.split()
COCO = '''person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, stop sign, parking meter,
bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, backpack, umbrella, handbag, tie, suitcase, frisbee, skis,
snowboard, sports ball, kite, baseball bat, baseball glove, skateboard, surfboard, tennis racket, bottle, wine glass, cup, fork, knife,
spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed,
dining table, toilet, tv, laptop, mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, book, clock, vase,
scissors, teddy bear, hair drier, toothbrush'''.replace('\n', ' ').split(', ')
NUS = 'boats cityscape dancing frost house map moon police reflection rocks sand sun sunset swimmers tattoo tower'.split()


@pytest.mark.parametrize('names', [VOC, COCO, NUS], ids=['voc', 'coco', 'nus'])
def test_label_sets_have_vectors(names):
    g = label_vectors(load_words(), names)
    assert g.shape==(len(names), 50) and g.dtype==np.float32 and np.isfinite(g).all()
    assert len(np.unique(g, axis=0))==len(names)   # no two labels are the same word to us


def test_synonyms_of_two_data_sets_agree():
    "VOC's and COCO's names of one thing are nearer to each other than to any other label."
    pairs = dict(aeroplane='airplane', motorbike='motorcycle', sofa='couch', tvmonitor='tv', pottedplant='potted plant', diningtable='dining table')
    g = label_vectors(load_words(), COCO)
    g /= np.linalg.norm(g, axis=1, keepdims=True)
    for voc, coco in pairs.items(): assert COCO[(g@label_vectors(load_words(), [voc])[0]).argmax()]==coco


def test_loading_is_quick_and_lazy():
    "A fresh process that only imports the module loads neither gensim nor torch."
    code = "import sys, fsic_nb.words; print([m for m in ('gensim', 'torch', 'pyarrow', 'matplotlib') if m in sys.modules])"
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.strip()=='[]'


# --- files ---------------------------------------------------------------------------------------------------------------

word = st.text(st.characters(codec='utf-8', exclude_categories=('Z', 'C')), min_size=1, max_size=8)
number = st.floats(-1e6, 1e6, width=32)


@st.composite
def tables(draw):
    w = draw(st.integers(2, 5))   # with one number a line of a text file could be a header
    names = draw(st.lists(word.filter(lambda o: not o.isdecimal()), min_size=1, max_size=6, unique=True))
    return names, np.array([[draw(number) for _ in range(w)] for _ in names], dtype=np.float32)


def write(path, kind, names, vectors, zipped=False):
    head = f'{len(names)} {vectors.shape[1]}\n'.encode()
    text = b''.join(f"{n} {' '.join(repr(float(x)) for x in v)}\n".encode() for n, v in zip(names, vectors))
    raw = b''.join(n.encode()+b' '+v.astype('<f4').tobytes()+b'\n' for n, v in zip(names, vectors))
    data = dict(glove=text, word2vec=head+text, binary=head+raw)[kind]
    path.write_bytes(gzip.compress(data) if zipped else data)
    return path


@pytest.mark.parametrize('kind', ['glove', 'word2vec', 'binary'])
@settings(max_examples=40, deadline=None)
@given(table=tables(), zipped=st.booleans())
def test_what_is_written_is_read(kind, table, zipped, tmp_path_factory):
    names, vectors = table
    path = write(tmp_path_factory.mktemp('w')/'v.dat', kind, names, vectors, zipped)
    if detect_format(path)[0]!=('binary' if kind=='binary' else 'text'): return   # bytes of a tiny binary file may spell numbers
    kv = load_words(path)
    assert kv.index_to_key==names
    np.testing.assert_array_equal(kv.vectors, vectors)


def test_gensim_reads_and_writes_the_same(tmp_path):
    from gensim.models import KeyedVectors
    kv = KeyedVectors(4)
    kv.add_vectors(['cat', 'dog', 'potted'], np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32))
    for binary in (False, True):
        kv.save_word2vec_format(str(tmp_path/'v'), binary=binary)
        mine = load_words(tmp_path/'v')
        assert mine.index_to_key==kv.index_to_key
        np.testing.assert_array_equal(mine.vectors, kv.vectors)
        assert mine.most_similar('cat', topn=1)[0][0]==kv.most_similar('cat', topn=1)[0][0]


def test_many_blocks_and_limit(tmp_path):
    names = [f'w{i}x' for i in range(45_000)]
    path = write(tmp_path/'v.txt', 'glove', names, np.arange(90_000, dtype=np.float32).reshape(-1, 2))
    assert load_words(path)['w44999x'].tolist()==[89_998, 89_999]
    assert load_words(path, limit=20_001).index_to_key==names[:20_001]


def test_line_of_damage_is_named(tmp_path):
    lines = [f'w{i}x 1 2 3' for i in range(30_000)]
    lines[24_680] = 'w24680x 1 2'
    (tmp_path/'v.txt').write_text('\n'.join(lines))
    with pytest.raises(FsicError, match=r"v.txt, line 24681: expected a word and 3 numbers, found 'w24680x 1 2'"): load_words(tmp_path/'v.txt')


def test_a_number_that_is_none_is_named(tmp_path):
    (tmp_path/'v.txt').write_text('cat 1 2 3\nowl 1 2 x\n')
    with pytest.raises(FsicError, match=r"v.txt, line 2: expected a word and 3 numbers, found 'owl 1 2 x'"): load_words(tmp_path/'v.txt')


@pytest.mark.parametrize('kind', ['glove', 'word2vec', 'binary'])
def test_of_a_word_that_appears_twice_the_first_vector_counts(tmp_path, kind):
    kv = load_words(write(tmp_path/'v', kind, ['cat', 'owl', 'cat'], np.float32([[1.5, 2], [3, 4], [5, 6]])))
    assert kv.index_to_key==['cat', 'owl'] and kv['cat'].tolist()==[1.5, 2] and len(kv.vectors)==2


@pytest.mark.parametrize('kind', ['glove', 'word2vec'])
@pytest.mark.parametrize('zipped', [False, True])
def test_files_saved_by_windows(tmp_path, kind, zipped):
    names, vectors = ['cat', 'dog', 'Käse'], np.eye(3, dtype=np.float32)
    data = b'\xef\xbb\xbf'+write(tmp_path/'v.txt', kind, names, vectors).read_bytes().replace(b'\n', b'\r\n')
    (tmp_path/'w.txt').write_bytes(gzip.compress(data) if zipped else data)
    kv = load_words(tmp_path/'w.txt')
    assert kv.index_to_key==names and np.array_equal(kv.vectors, vectors)


@pytest.mark.parametrize('data,line', [(b'3 100\ncat 9:0.022 14:0.3\n', 2), (b'cat 9:-1e-3 14:0.3\ndog 2:1\n', 1), ('3 9\n猫 1:.5\n'.encode(), 2)])
def test_sparse_vectors_are_named(tmp_path, data, line):
    (tmp_path/'v.txt').write_bytes(data)
    with pytest.raises(FsicError, match=rf'v.txt, line {line}: .* is a sparse vector \(index:value\)') as e: load_words(tmp_path/'v.txt')
    assert '\n' not in str(e.value)


@pytest.mark.parametrize('data,says', [
    (b'', 'neither GloVe nor word2vec'), (b'hello\n', 'neither GloVe nor word2vec'), (b'PK\x03\x04', 'an archive'),
    (b'\x80\x04\x95', 'a pickle'), (b'3 2\ncat 1 2\n', 'only 1 are there'), (b'cat 1 nan\n', 'not finite'),
    (b'9999999999 300\ncat '+b'\xff'*99, 'only 0 are there'), (b'0 2\n', 'contains no words'),
    (gzip.compress(b'cat 1 2\n'*9999)[:-12], 'cannot be read')])
def test_damaged_files(tmp_path, data, says):
    (tmp_path/'v.txt').write_bytes(data)
    with pytest.raises(FsicError, match=says) as e: load_words(tmp_path/'v.txt')
    assert str(tmp_path/'v.txt') in str(e.value) and '\n' not in str(e.value)


def test_a_pickle_is_never_opened(tmp_path):
    "gensim's own format would run code; the file below creates another one if it does."
    import pickle
    class Evil:
        def __reduce__(self): return (Path.touch, (tmp_path/'ran',))
    for protocol in (0, 2, 5):
        (tmp_path/'v.kv').write_bytes(pickle.dumps(Evil(), protocol))
        with pytest.raises(FsicError): load_words(tmp_path/'v.kv')
    assert not (tmp_path/'ran').exists()


def test_large_files_are_parsed_once(tmp_path, monkeypatch):
    monkeypatch.setenv('FSIC_HOME', str(tmp_path/'home'))
    path = write(tmp_path/'v.txt', 'glove', ['cat', 'dog'], np.eye(2, dtype=np.float32))
    first = W._load_file(path, large=0)
    monkeypatch.setattr(W, '_read_text', lambda *_: pytest.fail('parsed again'))
    again = W._load_file(path, large=0)
    np.testing.assert_array_equal(first.vectors, again.vectors)
    monkeypatch.undo(); monkeypatch.setenv('FSIC_HOME', str(tmp_path/'home'))
    write(path, 'glove', ['cat', 'owl'], np.eye(2, dtype=np.float32))
    assert 'owl' in W._load_file(path, large=0)   # new content, new name


# --- names ---------------------------------------------------------------------------------------------------------------

def test_names_without_a_network(monkeypatch):
    import gensim.downloader as api
    def dead(*_, **__): raise OSError('Name or service not known')
    monkeypatch.setattr(api, 'urlopen', dead); monkeypatch.setattr(api, 'BASE_DIR', '/nowhere/at/all'); monkeypatch.setattr(api, '_create_base_dir', lambda: None)
    with pytest.raises(FsicError, match="without a network; give a file or use 'glove-50'") as e: load_words('glove-wiki-gigaword-300')
    assert '\n' not in str(e.value)


@pytest.mark.parametrize('source,says', [('no/such/file.txt', 'no such file'), ('glove.6B.300d.txt', 'no such file'), ('.', 'a folder')])
def test_paths_that_are_no_files(source, says):
    with pytest.raises(FsicError, match=says): load_words(source)


# --- labels --------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('a,b', [('traffic light', 'Traffic_Light'), ('hot dog', ' hot-dog '), ('tvmonitor', 'TV Monitor'), ('sofa/couch', 'sofa couch')])
def test_spellings_of_one_label(a, b): assert tokens(a)==tokens(b)


def test_cased_vocabularies():
    kv = to_keyed_vectors(['Paris', 'TV', 'cat', 'Cat'], np.eye(4, dtype=np.float32))
    assert label_vectors(kv, ['paris', 'tv', 'Cat', 'tv cat']).tolist()==[[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, .5, .5, 0]]


def test_unknown_words_name_label_word_and_neighbours():
    with pytest.raises(FsicError, match=r"label 'zebbra crossing': no word vector for 'zebbra', nearest: zebra.*\(and 1 more: qzqzx\)") as e:
        label_vectors(load_words(), ['cat', 'zebbra crossing', 'qzqzx'])
    assert '\n' not in str(e.value)


def test_empty(): assert label_vectors(load_words(), []).shape==(0, 50)


def plain_vectors(words, names):
    "The rule for names of well-kept data sets: split at blanks and hyphens, lower case, mean."
    split = [[t for w in re.split(r'[\s_\-/,;:()]+', n.lower()) if w for t in JOINED.get(w, w).split()] for n in names]
    return np.stack([np.mean([words[t] for t in ts], 0) for ts in split]).astype(np.float32), split

def test_names_of_data_sets_keep_their_vectors():
    "To the last bit; the labels of the scenes are read with hyphens as blanks."
    from fsic_nb.protocols import COCO_NAMES
    from fsic_nb.readers import NUSWIDE_NAMES
    from fsic_nb.scenes import concepts
    from fsic_nb.voc import VOC_NAMES
    names = [*VOC_NAMES, *COCO_NAMES, *NUSWIDE_NAMES, *(c.name.replace('-', ' ') for c in concepts())]
    want, split = plain_vectors(load_words(), names)
    assert np.array_equal(label_vectors(load_words(), names), want) and known_labels(load_words(), names).all()
    assert [tokens(n) for n in names]==split


@pytest.mark.parametrize('name,words', [
    ('AnnualCrop', 'annual crop'), ('SeaLake', 'sea lake'), ('HerbaceousVegetation', 'herbaceous vegetation'), ('longsleeve', 'long sleeve'),
    ('trafficlight', 'traffic light'), ('001.Black_footed_Albatross', 'black footed albatross'), ("driver's seat", 'driver seat'),
    ('driver’s seat', 'driver seat'), ('bottle #2', 'bottle'), ('bottle2', 'bottle'), ('17_bottle', 'bottle'), ('T-Shirt', 't-shirt'), ('x-ray', 'x-ray'),
    ('TVMonitor', 'tv monitor'), ('Potted_Plant', 'potted plant'), ('iPhone', 'iphone'), ('red.panda', 'red panda'), ('Señorita', 'señorita'),
    ('Käse tábles', 'kase tables'), ('hard-hats-kx4zq', 'hard hats'), ('7 up', 'up'), ('42', '42'),
    ('SKU-4711', ''), ('n01440764', ''), ('a3f9c2', ''), ('猫', ''), ('🍕', ''), ('---', ''), ('xqzzvkw', '')])
def test_labels_as_people_write_them(name, words):
    for form in ('NFC', 'NFD'): assert ' '.join(find_words(load_words(), unicodedata.normalize(form, name))[0])==words
    assert known_labels(load_words(), [name]).tolist()==[bool(words) and not words.isdecimal()]


COMMON = [w for w in load_words().index_to_key[:3000] if re.fullmatch('[a-z]{3,}', w)]

@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(COMMON), min_size=1, max_size=3), st.sampled_from(['_', ' ', '/', '-', '.', 'case', ' & ']), st.integers(-1, 999))
def test_spellings_of_folders_have_the_vector_of_their_words(words, joint, number):
    "Joined by anything and numbered or not; unless the whole is a word of its own, as check-in is."
    name = ''.join(w.title() for w in words) if joint=='case' else joint.join(words)
    if len(words)>1 and joint in '-.case' and name.lower() in load_words(): return
    if number>=0: name = f'{number:03}.{name}'
    assert np.array_equal(label_vectors(load_words(), [name]), label_vectors(load_words(), [' '.join(words)]))


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=12))
def test_any_text_may_be_a_label(name):
    g = label_vectors(load_words(), [name], skip=True)
    assert np.isfinite(g).all() and (g.any() or not known_labels(load_words(), [name])[0])
    known, unknown = find_words(load_words(), name)
    assert all(w in load_words() for w in known)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 30_000), st.integers(0, 10**6))
def test_a_dropped_letter_is_found_again(i, k):
    w = load_words().index_to_key[i]
    if not (w.isalpha() and len(w)>7): return
    typo = w[:(j := 1+k%(len(w)-2))]+w[j+1:]
    if typo not in load_words(): assert suggest(load_words(), typo)
