"The packaged space for photographs is what its command makes of the photos."
import os
from argparse import Namespace

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import cosine_similarity

import tags


@pytest.mark.skipif(not os.environ.get('FSIC_SLOW'), reason='takes three minutes: FSIC_SLOW=1 runs it')
def test_the_packaged_space_is_made_again(photos, tmp_path, monkeypatch):
    """From the first photo on, bit for bit on the processor that made it.

    Another one rounds features otherwise: then the weakest directions turn a little and the rest is the same to the rounding of half floats.
    """
    monkeypatch.setenv('FSIC_HOME', str(tmp_path))                # nothing that was looked at before
    threads = torch.get_num_threads()
    try: tags.weights(Namespace(root=str(photos/'voc'), to=tmp_path/'again.safetensors'))
    finally: torch.set_num_threads(threads)
    ours, again = ({k: t.float() for k, t in load_file(p).items()} for p in (tags.target, tmp_path/'again.safetensors'))
    assert {k: t.shape for k, t in ours.items()}=={k: t.shape for k, t in again.items()}
    for k in ('rates', 'vocabulary.mean'): torch.testing.assert_close(again[k], ours[k], rtol=2e-3, atol=1e-6)
    for k in ('proj.weight', 'ground'): assert cosine_similarity(again[k], ours[k]).min()>.999, k
    torch.testing.assert_close(again['proj.bias'], ours['proj.bias'], rtol=0, atol=2e-3*ours['proj.bias'].abs().max().item())
