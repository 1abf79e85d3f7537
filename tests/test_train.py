"A training is a function of its seed, its step and its training labels, and of nothing else."
from dataclasses import replace

import numpy as np, pytest, torch
from safetensors.torch import load_file

import golden
from fsic_nb.baselines import TRAINING_FREE, RelationConfig
from fsic_nb.files import read_json
from fsic_nb.data import ImageSet
from fsic_nb.metrics import episode_metrics
from fsic_nb.model import PaperConfig
from fsic_nb.named import class_rates, fit_named, fit_space
from fsic_nb.probes import cross_fit
from fsic_nb.recipes import make_kinds, make_validation
from fsic_nb.refined import Encoder, RefinedConfig
from fsic_nb.runs import load_model
from fsic_nb.support import load_episodes
from fsic_nb.train import Plan, Schedule, train, train_step, validator

C, W, D = golden.C, golden.W, golden.D
silent = lambda line: None

@pytest.fixture(scope='module')
def exp(): return golden.make_experiment()

def same(a, b): return all(torch.equal(a[k], b[k]) for k in a) and a.keys()==b.keys()

def plan_of(exp, cfg=RelationConfig(C, D, 6, .5), **kw):
    return Plan(cfg, [exp.episodes('train', 1), exp.episodes('train', 2, queries=2, ways=3)], Schedule(**{**dict(steps=6, lr=1e-2, warmup=2, every=2), **kw}))


# --- chance ------------------------------------------------------------------------------------------------------------

def test_dropout_is_a_function_of_seed_and_step(exp):
    "The same whenever the step is made; another one for another step, and for another seed."
    def loss(seed, step):
        m = golden.with_weights(RelationConfig(C, D, 6, .5).build(), 0)
        return train_step(m, torch.optim.SGD(m.parameters(), 0.), load_episodes(exp, [exp.episodes('train', 1)[0]]), 0., seed, step)
    torch.manual_seed(3)
    first = loss(0, 0)
    torch.manual_seed(4)
    assert loss(0, 0)==first and len({first, loss(0, 1), loss(0, 2), loss(1, 0)})==4

def test_a_step_goes_down_by_its_rate(exp):
    "One step of plain descent, by hand; the gradient of the step before does not count again."
    m = golden.with_weights(RelationConfig(C, D, 6, 0.).build(), 0)
    batch = load_episodes(exp, [exp.episodes('train', 1)[0]])
    opt, w = torch.optim.SGD(m.parameters(), 1.), m.relate[0].weight
    for lr in (.1, .03):
        before = w.detach().clone()
        copy = golden.with_weights(RelationConfig(C, D, 6, 0.).build(), 0)
        copy.load_state_dict(m.state_dict())
        copy.train().loss(*batch).backward()
        train_step(m, opt, batch, lr, 0, 0)
        assert torch.allclose(before-w, lr*copy.relate[0].weight.grad, atol=1e-6) and (before-w).abs().max()>1e-5

@pytest.mark.parametrize('kept', [0, 1, 2])
def test_a_training_that_was_cut_ends_with_the_same_bits(exp, tmp_path, kept):
    "Weights, Adam's moments, dropout, the log and the choice of the best model."
    whole, parts = tmp_path/'whole', tmp_path/'parts'
    validate = validator([exp.episodes('val', 1)], exp, n=4)
    want = train(plan_of(exp), exp, whole, 1, validate).state_dict()
    class Cut(Exception): pass
    left = [kept]                                             # milestones before the cut
    def stop(model):
        if not left[0]: raise Cut
        left[0] -= 1
        return validate(model)
    with pytest.raises(Cut): train(plan_of(exp), exp, parts, 1, stop)
    assert same(train(plan_of(exp), exp, parts, 1, validate).state_dict(), want)
    assert (whole/'log.jsonl').read_text()==(parts/'log.jsonl').read_text() and read_json(whole/'last'/'state.json')==read_json(parts/'last'/'state.json')
    assert not same(train(plan_of(exp), exp, tmp_path/'other', 2, validate).state_dict(), want)

def test_the_best_weights_are_kept_not_the_last(exp, tmp_path):
    said = iter([.2, .5, .3])
    m = train(plan_of(exp), exp, tmp_path/'run', 0, lambda model: next(said))
    best = load_model(tmp_path/'run'/'best').state_dict()
    assert read_json(tmp_path/'run'/'last'/'state.json')==dict(step=6, best=.5) and same(m.state_dict(), best)
    assert not same(load_file(tmp_path/'run'/'last'/'weights.safetensors'), best)
    four = train(plan_of(exp, steps=4), exp, tmp_path/'four', 0)
    assert same(four.state_dict(), best)                      # the second milestone is after four steps

def test_a_rate_rises_stays_and_falls():
    s = Schedule(steps=100, lr=1., warmup=10, lr_start=.1)
    assert [s.at(k) for k in (0, 5, 10, 99)]==pytest.approx([.1, .55, 1., 1.])
    d = replace(s, decay=True)
    assert [d.at(k) for k in (0, 5, 10, 50, 99)]==pytest.approx([.1, .55*.95, .9, .5, .01])

def test_kinds_take_turns_and_no_episode_comes_twice(exp):
    p = plan_of(exp, batch=2)
    got = [[(e.shots, e.e) for e in p.batch(k)] for k in range(4)]
    assert got==[[(1, 0), (1, 1)], [(2, 0), (2, 1)], [(1, 2), (1, 3)], [(2, 2), (2, 3)]]

def test_validation_is_the_mean_over_its_first_episodes(exp):
    kinds, m = [exp.episodes('val', 1), exp.episodes('val', 2)], TRAINING_FREE['simpleshot'](exp.centre)
    maps = []
    for eps in kinds:
        for e in range(5):
            support, query, y = load_episodes(exp, [eps[e]])
            maps.append(episode_metrics(m(support)(query), y)['map'][0])
    for batch in (1, 2, 5): assert validator(kinds, exp, n=5, batch=batch)(m)==pytest.approx(np.mean(maps), abs=1e-6)

def test_what_is_tried_before_the_first_step_is_the_start(exp, tmp_path):
    "A start's weights are those of the first step; a plan without one begins with weights of its seed."
    cfg = PaperConfig(C, W, D, 2, 0., prototype='words')
    start = golden.with_weights(cfg.build(), 3)
    def one(folder, seed=0, **kw):
        return train(Plan(cfg, [exp.episodes('train', 1)], Schedule(steps=1, lr=0., lr_start=0., warmup=0), **kw), exp, tmp_path/folder, seed).state_dict()
    assert same(one('start', start=lambda: start), start.state_dict())
    assert same(one('a'), one('b')) and not same(one('c', 1), one('a'))


# --- what a training may see -------------------------------------------------------------------------------------------

def spoiled(exp):
    "The same experiment, but whatever has a test label looks otherwise, has other words, and carries other test labels."
    test = exp.images.index(exp.split.labels('test'))
    gone = exp.images.labels[:, test].any(1)
    y = exp.images.labels.copy()
    y[np.ix_(gone, test)] = ~y[np.ix_(gone, test)]
    none = gone&~y.any(1)
    y[none, test[0]] = True                                   # no image changes its part
    other = golden.make_experiment()
    other.features.x[torch.from_numpy(gone)] = 7.
    other.words[torch.from_numpy(test)] = 9.
    object.__setattr__(other, 'images', ImageSet(exp.images.paths, exp.images.names, y, 'toy'))
    return other

CFGS = {'refined': RefinedConfig(C, W, D), 'refined, vocabulary': RefinedConfig(C, W, D, golden.CLASSES), 'paper, identity': PaperConfig(C, W, D, 2, start='identity')}

@pytest.mark.parametrize('name', CFGS)
def test_a_start_sees_nothing_of_test_labels(name, exp):
    "Neither their images, nor who carries them, nor their words."
    want, got = (CFGS[name].initial_model(e).state_dict() for e in (exp, spoiled(exp)))
    assert same(want, got)
    blind = golden.make_experiment()                          # that it sees the training labels is no accident
    blind.words[torch.from_numpy(blind.images.index(['a', 'b']))] *= -1
    blind.features.x[torch.from_numpy(blind.training[:20])] += 1
    assert not same(CFGS[name].initial_model(blind).state_dict(), want)

@pytest.mark.parametrize('name', ['relation', 'laso', 'wagp', 'refined'])
def test_a_training_sees_nothing_of_test_labels(name, exp, tmp_path):
    "Start, steps, and the validation that chooses; with images for which nothing is trained, either."
    def run(e, folder):
        cfg = golden.CONFIGS[name]
        kinds = make_kinds(e, [dict(shots=1)], say=silent)
        plan = Plan(cfg, kinds, Schedule(steps=4, lr=1e-2, warmup=1, every=2), lambda: cfg.initial_model(e, 0))
        return train(plan, e, tmp_path/folder, 0, make_validation(e, n=3)).state_dict()
    assert same(run(exp, 'a'), run(spoiled(exp), 'b'))

def test_what_is_measured_before_sees_nothing_of_test_labels(exp):
    other = spoiled(exp)
    assert torch.equal(exp.centre, other.centre) and np.array_equal(exp.training, other.training) and np.array_equal(exp.basis, other.basis)
    own = exp.images.index(exp.split.labels('train'))
    assert exp.images.labels[exp.training][:, own].any(1).all() and not np.delete(exp.images.labels[exp.training], own, 1).any()
    a, b = (fit_space(e, 6) for e in (exp, other))
    assert same(a.state_dict(), b.state_dict())
    assert torch.equal(class_rates(a, exp.features, exp.basis), class_rates(b, other.features, other.basis))
    assert torch.equal(fit_named(exp, a).rates, fit_named(other, b).rates)
    bare = golden.make_experiment()
    bare.__dict__['training'] = np.empty(0, np.int64)         # then the centre is of images without any test label
    test = bare.images.index(bare.split.labels('test'))
    assert len(bare.unseen) and not bare.images.labels[np.ix_(bare.unseen, test)].any() and np.array_equal(bare.basis, bare.unseen)
    assert torch.allclose(bare.centre, bare.features.mean_of(bare.unseen).mean(0))

def test_no_method_sees_the_labels_of_queries_or_another_support(exp):
    "A scorer of one support gives the same after another one was made, and whatever the queries carry."
    methods = golden.make_methods(exp)
    eps = exp.episodes('test', 1)
    one, query, y = load_episodes(exp, [eps[0]])
    two, _, _ = load_episodes(exp, [eps[1]])
    with torch.no_grad():
        for n, m in methods.items():
            scorer = m(one)
            want = scorer(query)
            m(two)(query)
            assert torch.equal(scorer(query), want), n
            if n not in ('ceiling', 'chance', 'words', 'name', 'name-places', 'paper, words', 'name-places, fresh space'):
                assert not torch.allclose(m(two)(query), want, atol=1e-3), n

def test_an_image_is_never_in_support_and_query(exp):
    for part, k in (('train', 1), ('val', 2), ('test', 5)):
        eps = exp.episodes(part, k)
        for e in range(20):
            ep = eps[e]
            assert not {*ep.support}&{*ep.query} and len({*ep.support})==len(ep.support) and len({*ep.query})==len(ep.query)
            assert {exp.images.names[i] for i in ep.labels}<={*exp.split.labels(part)}
            assert np.array_equal(ep.y, exp.images.labels[np.ix_(ep.support, ep.labels)]) and np.array_equal(ep.y_query, exp.images.labels[np.ix_(ep.query, ep.labels)])
            assert all(ep.y[i*k:(i+1)*k, i].all() for i in range(len(ep.labels)))                 # row i*K+k was drawn for label i
            n = len(ep.query)//len(ep.labels)
            assert all(ep.y_query[i*n:(i+1)*n, i].all() for i in range(len(ep.labels)))

def test_the_ceiling_never_scores_what_it_learned(exp):
    encoder = golden.with_weights(Encoder(C, D), 0)
    want = cross_fit(exp, encoder)
    y = exp.images.labels.copy()
    y[7, :3] = ~y[7, :3]
    other = golden.make_experiment()
    object.__setattr__(other, 'images', ImageSet(exp.images.paths, exp.images.names, y, 'toy'))
    got = cross_fit(other, encoder)
    assert torch.equal(got[7], want[7]) and not torch.equal(got, want)
