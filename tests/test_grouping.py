"What an episode's numbers are does not depend on the episodes that are evaluated beside it: every method, to the last bit."
import numpy as np, pytest, torch
import golden
from fsic_nb.cache import apply_rows
from fsic_nb.episodes import Episodes
from fsic_nb.evaluate import evaluate


class From(Episodes):
    "The episodes from a number on."
    def __init__(self, episodes, start): self.__dict__.update(vars(episodes), all=episodes, start=start)
    def __getitem__(self, e): return self.all[self.start+e]


@pytest.fixture(scope='module')
def methods():
    exp = golden.make_experiment()
    return exp, golden.make_methods(exp)


def parts(exp, methods, eps, sizes, batch):
    "Metrics and scores of the same episodes, evaluated in calls of some sizes."
    scores = {name: [] for name in methods}
    def keep(name):
        def method(support):
            scorer = methods[name](support)
            def kept(query):
                s = scorer(query)
                scores[name].extend(s)
                return s
            return kept
        method.zero_shot = True
        return method
    out, start = [], 0
    for n in sizes:
        out.append(evaluate({name: keep(name) for name in methods}, From(eps, start), exp, n=n, batch=batch))
        start += n
    metrics = {name: {k: np.concatenate([r[name][k] for r in out]) for k in out[0][name] if k!='seconds'} for name in methods}
    return metrics, scores


# Their scores may differ in the last bits: what they read of an image depends on the images read with it, or the longest
# list of kept local features in a batch decides how sums are split.
LAST_BITS = ('named', 'name-places')


@pytest.mark.parametrize('shots', golden.SHOTS)
def test_an_episode_is_the_same_beside_any_others(methods, shots):
    "Batches of one size, as `evaluate` makes them, that begin at any episode."
    exp, every = methods
    eps = exp.episodes('test', shots)
    metrics, scores = parts(exp, every, eps, (8,), 4)
    for start in (1, 2, 7):
        m, s = parts(exp, every, From(eps, start), (4,), 4)
        for name in every:
            n = min(4, 8-start)
            for k, table in metrics[name].items(): assert table[start:start+n].tobytes()==m[name][k][:n].tobytes(), (name, k)
            for a, b in zip(scores[name][start:], s[name]):
                assert torch.equal(a, b) or name.startswith(LAST_BITS) and torch.allclose(a, b, atol=2e-5), name


def test_few_rows_are_made_like_many():
    "Without copies one to three rows are added up in another order, and on several threads more."
    layer, x = torch.nn.Linear(64, 32), torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    seen = []
    def f(rows):
        seen.append(len(rows))
        return layer(rows), rows.sum(-1)
    with torch.no_grad():
        want = f(x)
        for n in range(1, 20):
            for got, all_ in zip(apply_rows(f, x[:n]), want): assert torch.equal(got, all_[:n])
        assert min(seen)==16 and [len(t) for t in apply_rows(f, x[:0])]==[0, 0]
        assert apply_rows(lambda rows: rows.new_tensor([len(rows)]*len(rows)), torch.zeros(1, 49, 8)).shape==(1,)
