"""transformers' Emu3 is the second opinion: the same weights give the same logits and gradients, whatever the mask."""

from __future__ import annotations

import pytest
import tiny
import torch
from transformers import Emu3ForCausalLM, Emu3TextConfig

from udvla_ros.model import weights
from udvla_ros.model.attention import ended
from udvla_ros.model.backbone import Backbone
from udvla_ros.model.decoder import published

SIZE = {"initializer_range": 0.05}


def both(kind: str, dtype: torch.dtype = torch.float32, **changes) -> tuple[Backbone, Emu3ForCausalLM]:
    ours = tiny.backbone(kind, 1, **SIZE, **changes).to(dtype)
    v = ours.layout.vocabulary
    ids = {"vocab_size": v.size, "pad_token_id": v.pad, "bos_token_id": v.bos, "eos_token_id": v.eos}
    config = Emu3TextConfig(**{**tiny.BACKBONE, **SIZE, **changes, **ids, "tie_word_embeddings": False})
    theirs = Emu3ForCausalLM(config).to(dtype).eval()
    theirs.load_state_dict(dict(weights.named(ours.decoder)))
    return ours, theirs


def case(net: Backbone):
    ids, positions, modality = tiny.tensors(tiny.prefix([[1, 2, 3], [4]], 1))
    suffix = torch.as_tensor(net.layout.suffix(tiny.image_codes(2, 2), [[1, 2], [3, 4, 5]]))
    mask, where = net.sequence_mask(modality, positions)
    return torch.cat([ids, suffix], 1), where, mask, modality


@pytest.mark.parametrize("kind", ["causal", "merged", "hybrid"])
@pytest.mark.parametrize("heads", [2, 4])
def test_logits_and_gradients_are_those_of_transformers(kind, heads):
    ours, theirs = both(kind, num_key_value_heads=heads)
    ids, where, mask, _ = case(ours)
    theirs_mask = mask  # the block of `merged` ends at a visible EOA: a rule of ours, which they need told
    if ours.kind.ends_at_eoa:
        theirs_mask = ended(mask[:, 0], ids == ours.layout.vocabulary.eoa)[:, None]
    told = theirs(input_ids=ids, position_ids=where, attention_mask=theirs_mask, use_cache=False).logits
    real = mask.diagonal(dim1=-2, dim2=-1)[:, 0] & (ids != ours.layout.vocabulary.pad)
    got = ours.logits(ours.hidden(ids, where, mask))
    torch.testing.assert_close(got[real], told[real], rtol=1e-5, atol=1e-5)
    for logits in (got, told):
        torch.nn.functional.cross_entropy(logits[real], ids[real]).backward()
    gradients = {name: p.grad for name, p in theirs.named_parameters()}
    own = {name: p.grad for name, p in ours.decoder.named_parameters()}
    for name, parts in published(ours.shape):
        wanted = torch.cat([gradients[theirs_name] for theirs_name, _ in parts])
        torch.testing.assert_close(own[name], wanted, rtol=1e-5, atol=1e-5)


@torch.inference_mode()
def test_half_precision_is_as_near_to_the_exact_logits_as_theirs():
    exact, _ = both("hybrid", torch.float64)
    ids, where, mask, _ = case(exact)
    wanted = exact.logits(exact.hidden(ids, where, mask).float(), exact.decoder.head.float())
    ours, theirs = both("hybrid", torch.bfloat16)
    real = ids != ours.layout.vocabulary.pad
    told = theirs(input_ids=ids, position_ids=where, attention_mask=mask, use_cache=False).logits.float()
    got = ours.logits(ours.hidden(ids, where, mask))
    far = [(logits - wanted)[real].norm() / wanted[real].norm() for logits in (got, told)]
    assert far[0] < 1.1 * far[1] < 0.05
