"The slow versions are equal to the library's fast ones, and the bench's file is well-formed. No clock is judged here."
import inspect, json, math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from fsic_nb import bench
from fsic_nb.core import FsicError
from fsic_nb.files import read_json
from fsic_nb.evaluate import evaluate
from fsic_nb.features import FeatureStore
from fsic_nb.interact import BLOCKS, CrossInteraction
from fsic_nb.lcm import lcm_scores, leave_one_out
from fsic_nb.metrics import episode_metrics
from fsic_nb.plain import cross_prototypes, iterate_lcm, leave_each_out
from fsic_nb.refined import plain_refined
from fsic_nb.support import Features, Support, simpleshot

C, D, L = 24, 16, 9


def support(seed, S, N, grid=3):
    "Local features, weights, prototypes and labels; some labels and images have nothing."
    gen = torch.Generator().manual_seed(seed)
    f = torch.randn(S, grid*grid, C, generator=gen).relu().double()
    W, b, t = (torch.randn(*s, generator=gen).double() for s in ((D, C), (D,), (N, D)))
    return f, W, b, t, torch.rand(S, N, generator=gen)<.35


sizes = st.tuples(st.integers(0, 2**31), st.integers(1, 6), st.integers(1, 5))


# --- slow and fast are one ---------------------------------------------------------------------------------------------

@settings(max_examples=15, deadline=None)
@given(sizes)
def test_iterated_lcm_is_the_gram_form(size):
    f, W, b, t, y = support(*size)
    slow, fast = iterate_lcm(f, W, b, t, y, 25), lcm_scores(f@W.T, b, t, y, 25)
    assert ((fast-slow).abs()<=1e-4*slow.abs()+1e-14).all()


@settings(max_examples=25, deadline=None)
@given(sizes)
def test_masked_poolings_are_leave_one_out(size):
    f, W, b, t, y = support(*size)
    assert torch.allclose(leave_each_out(f@W.T, b, t, y), leave_one_out(f@W.T, b, t, y), atol=1e-7)


@settings(max_examples=20, deadline=None)
@given(sizes, st.sampled_from([BLOCKS, BLOCKS[::-1], ('gate',), ('conv',), ()]), st.sampled_from([None, .5, 0.]))
def test_a_loop_over_labels_is_the_interaction(size, parts, share):
    "Labels without a positive, positives of which nothing is kept, parts in any order."
    f, W, b, t, y = support(*size)
    torch.manual_seed(0)
    m = CrossInteraction(C, D, heads=4, parts=parts).eval().double()
    weights = {f'interact.{name}': w for name, w in m.state_dict().items()}
    keep = None if share is None else torch.rand(*y.shape, L, generator=torch.Generator().manual_seed(1))<share
    with torch.no_grad(): fast = m(m.encode_images(f), m.encode_words(t), y, keep)
    assert torch.allclose(fast, cross_prototypes(weights, f, y, t, keep, heads=4), atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 12), st.integers(2, 5), st.booleans())
def test_sklearn_agrees_with_the_metrics(seed, Q, N, ties):
    pytest.importorskip('sklearn')
    gen = torch.Generator().manual_seed(seed)
    s, y = torch.randn(Q, N, generator=gen), torch.rand(Q, N, generator=gen)<.4
    y[0] = True                                                # scikit-learn calls an AP without positives 0
    y[1] = False                                               # and none without negatives 1
    if ties: s = s.round()
    got = episode_metrics(s, y)
    assert np.allclose(bench.sklearn_metrics(s, y), [got[k] for k in bench.SKLEARN], atol=1e-6)


@pytest.fixture(scope='module')
def tiny(tmp_path_factory): return bench.Bench(tmp_path_factory.mktemp('bench'), repeats=1, quick=True)


@pytest.fixture(scope='module')
def made_up(tiny): return bench.make_data(tiny, 160, 5, 4, 24, more=.2)


@pytest.mark.parametrize('shots', [1, 3])
@pytest.mark.parametrize('name', ['simpleshot', 'refined', 'literal', 'signed', 'share'])
@torch.no_grad()
def test_plain_methods_give_the_library_s_logits(made_up, name, shots):
    ep = made_up.episodes('test', shots, queries=3)[1]
    f, fq, y = made_up.features[ep.support], made_up.features[ep.query], torch.from_numpy(ep.y)
    g = made_up.words[torch.as_tensor(ep.labels)]
    refined, paper = bench.fresh_models(f.shape[-1], g.shape[1], 32)
    if name=='simpleshot':
        centre = made_up.features.mean_of(np.arange(50)).mean(0)
        fast, slow = simpleshot(centre), bench.plain_simpleshot(centre)
    elif name=='refined':
        for k, p in refined.named_parameters():                # dials that depend on the number of positives and on the round
            if k.endswith(('log', 'kappa')): p.copy_(torch.linspace(-.05, .05, len(p)) if len(p)>1 else torch.tensor([.03]))
        fast, slow = refined, plain_refined(refined)
    else:
        fast = bench.change_config(paper, **(dict(lcm_steps=15) if name=='literal' else dict(lcm='exact', keep=name)))
        slow = bench.plain_paper(fast)
    a, b = fast(Support(Features(f), y, g))(Features(fq)), slow(f, y, g, fq)
    assert a.std()>.01 and torch.allclose(a, b, atol=2e-4), (a-b).abs().max()


def test_loops_and_evaluate_score_the_same_episodes(made_up):
    pytest.importorskip('sklearn')
    eps, centre = made_up.episodes('test', 1), made_up.centre
    fast = evaluate({'m': simpleshot(centre)}, eps, bench.reopen(made_up), n=6)['m']
    slow = np.array(bench.plain_evaluate(bench.plain_simpleshot(centre), eps, made_up, 6))
    assert np.allclose(slow, np.stack([fast[k] for k in bench.SKLEARN], 1), atol=1e-6)


# --- every stage, tiny -------------------------------------------------------------------------------------------------

LIMITS = dict(loo=1e-5, prototypes=1e-5, metrics=1e-6, evaluation=1e-4, easyfsl=1e-6, training=1e-4, tagging=1e-6)

@pytest.mark.parametrize('name', bench.STAGES)
def test_every_stage_gives_well_formed_records_of_equal_results(tiny, name):
    rows = list(bench.STAGES[name](tiny))
    assert rows
    for r in rows:
        assert set(bench.FIELDS)<=set(r)
        if 'missing' in r: continue
        assert all(isinstance(r[k], float) and math.isfinite(r[k]) and r[k]>0 for k in ('ours_ms', 'against_ms', 'ratio')) and (r['target']>=1 or 'most' in r)
        if name=='lcm': assert r['equal_to']=='identical kept set'
        elif name in LIMITS: assert r['equal_to']<=LIMITS[name]
    assert json.loads(json.dumps(rows))==rows


def test_a_difference_would_be_seen(tiny, monkeypatch):
    "The harness measures equality; it does not assume it."
    monkeypatch.setattr(bench, 'leave_one_out', lambda *a: leave_one_out(*a)+.1)
    assert next(bench.time_leave_one_out(tiny))['equal_to']>.09
    monkeypatch.setattr(bench, 'lcm_scores', lambda *a: lcm_scores(*a).flip(-1))
    assert next(bench.time_lcm(tiny))['equal_to']!='identical kept set'


@pytest.mark.parametrize('package,stage', [('easyfsl', 'easyfsl'), ('sklearn', 'metrics'), ('sklearn', 'evaluation')])
def test_a_rival_that_is_not_installed_leaves_a_record(tiny, monkeypatch, package, stage):
    monkeypatch.setattr(bench, 'is_installed', lambda name: name!=package)
    rows = list(bench.STAGES[stage](tiny))
    assert rows and all(set(bench.FIELDS)<=set(r) and r['ratio'] is None for r in rows)
    assert all(r['stage']==stage and f'{package} is not installed' in r['missing'] for r in rows)
    assert all(r['missing'] in bench.line(r) for r in rows)


def test_installed():
    assert bench.is_installed('json') and not bench.is_installed('no_module_of_this_name')


# --- made-up stores ----------------------------------------------------------------------------------------------------

def test_a_sparse_store_reads_as_written(tmp_path):
    y = bench.make_labels(2000, 8)
    bench.write_store(tmp_path/'s', y, (7, 7), 64, only=[5, 1999, 5])
    store = FeatureStore(tmp_path/'s')
    store.verify()
    assert store[[5, 1999]].abs().amax((1, 2)).min()>0 and store[[0, 6, 1998]].abs().max()==0
    locals_ = tmp_path/'shards'/'s-0'/'locals.npy'
    if hasattr(locals_.stat(), 'st_blocks'): assert locals_.stat().st_blocks*512<locals_.stat().st_size/4


def test_a_store_is_a_function_of_its_sizes(tmp_path):
    y = bench.make_labels(130, 4)
    for name in ('a', 'b'): bench.write_store(tmp_path/name, y, (2, 2), 8)
    a, b = (tmp_path/'shards'/f'{name}-0'/'locals.npy' for name in 'ab')
    assert a.read_bytes()==b.read_bytes()


# --- the command -------------------------------------------------------------------------------------------------------

def quiet(line): pass

def test_the_file_is_written_after_every_stage_and_atomically(tmp_path, monkeypatch):
    out, seen = tmp_path/'deep'/'bench.json', []
    def broken(b): seen.append(read_json(out)); raise RuntimeError('cut')
    monkeypatch.setitem(bench.STAGES, 'loo', broken)
    with pytest.raises(RuntimeError): bench.measure(out, 'lcm,loo', 1, True, say=quiet)
    kept = read_json(out)
    assert kept==seen[0] and len(kept['records'])==2 and [p.name for p in out.parent.iterdir()]==['bench.json']


def test_the_file_names_the_machine_and_no_path(tmp_path):
    lines = []
    res = bench.measure(tmp_path/'b.json', 'loo', 1, True, say=lines.append)
    text = (tmp_path/'b.json').read_text()
    assert read_json(tmp_path/'b.json')==res and res['quick'] and res['repeats']==1
    assert {'cpu', 'threads', 'torch', 'copy_gb_s'}<=set(res['machine']) and 'share' in res['records'][0]
    assert str(tmp_path) not in text and str(Path.home()) not in text and len(lines)==2+len(res['records'])+len(res['startup'])


@pytest.mark.parametrize('kw,says', [(dict(stages='lcm,sleep'), 'sleep: no such stage'), (dict(repeats=0), '--repeats 0'), (dict(out='.'), 'no file can be written')])
def test_what_the_user_can_mend(kw, says):
    with pytest.raises(FsicError, match=says): bench.measure(say=quiet, quick=True, **kw)


def test_a_bench_without_a_rate_has_no_share(tiny):
    assert 'share' not in bench.reach(tiny, dict(ours_ms=1.), 10, 10)
    row = bench.reach(replace(tiny, peaks=(1e9, 1e9)), dict(ours_ms=2.), 10**6, 10**3)
    assert row['share']==.5 and row['bound']=='memory' and row['bandwidth']==.5


def test_turns_alternate_and_medians_are_kept():
    order = []
    r = bench.ratio(lambda: order.append('a'), lambda: order.append('b'), repeats=3, least=0)
    assert ''.join(order)=='ab'+'ab'*3 and set(r)=={'ours_ms', 'against_ms', 'ratio', 'range', 'repeats'}


@pytest.mark.parametrize('what', bench.STARTS)
def test_nothing_of_torch_is_imported_to_answer(what):
    guard = 'import atexit, sys; atexit.register(lambda: print("torch" in sys.modules))\n'
    assert bench.run_fresh(guard+bench.STARTS[what][1]).split()[-1]=='False'


def test_the_command_hands_its_options_over(monkeypatch):
    "By position, so both must name them in the same order."
    from fsic_nb.cli import fsic_bench
    given, names = [], [*inspect.signature(fsic_bench).parameters]
    assert names==[*inspect.signature(bench.measure).parameters][:-1]
    monkeypatch.setattr(bench, 'measure', lambda *args: given.append(args))
    fsic_bench(stages='loo', repeats=1, quick=True)
    assert given==[('', 'loo', 1, True, False)]


def test_everything_is_measured(tmp_path):
    "With the curves, the growth and the large store, which run in processes of their own."
    res = bench.measure(tmp_path/'b.json', 'loo', 1, True, True, quiet)
    assert {r['curve'] for r in res['curves']}=={'ways', 'shots', 'places', 'images', 'photos'}
    row, = res['large_store']
    assert row['images']==600 and row['peak_mib']>10 and row['limit_mib']==3072 and all(v>0 for v in row['rates'].values())
    assert [r['what'] for r in res['startup']]==[*bench.STARTS] and read_json(tmp_path/'b.json')==res
