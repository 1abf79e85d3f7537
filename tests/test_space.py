"The packaged space for photographs is what its command makes of the photos."
import hashlib
from argparse import Namespace

import torch
from safetensors.torch import load_file

import tags


def half(t): return t.half()


def test_the_packaged_space_is_made_again(photos, tmp_path, monkeypatch):
    "From the first photo to the last bit; another number of threads may change a last bit of the half floats."
    monkeypatch.setenv('FSIC_HOME', str(tmp_path))                # nothing that was looked at before
    tags.weights(Namespace(root=photos/'voc', to=tmp_path/'again.safetensors'))
    ours, again = load_file(tags.target), load_file(tmp_path/'again.safetensors')
    assert ours.keys()==again.keys()
    differ = {k for k in ours if not torch.equal(ours[k], again[k])}
    assert not differ
