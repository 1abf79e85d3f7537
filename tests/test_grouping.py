"What an episode's numbers are does not depend on the episodes that are evaluated beside it: every method, to the last bit."
import copy
import numpy as np, pytest, torch
import golden
from fsic_nb.evaluate import evaluate

N = 13


class From:
    "The episodes from a number on."
    def __init__(self, episodes, start): self.__dict__.update(vars(episodes), names=episodes.names, all=episodes, start=start)
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


def differing(exp, methods, eps, groups, n=N):
    "Methods whose metrics, and whose scores, differ in any bit from those of one call."
    metrics, scores = parts(exp, methods, eps, (n,), None)
    bad = {}
    for sizes, batch in groups:
        m, s = parts(exp, methods, eps, sizes, batch)
        for name in methods:
            kinds = [k for k in metrics[name] if metrics[name][k].tobytes()!=m[name][k].tobytes()]
            far = [float((a-b).abs().max()) for a, b in zip(scores[name], s[name]) if not torch.equal(a, b)]
            if kinds or far: bad.setdefault(name, []).append((sizes, batch, kinds, len(far), max(far, default=0)))
    return bad
