"""A UNet whose blocks are told of the thing that they show."""

import torch
from diffusers import UNet2DConditionModel

from sds3d.priors.embedded.network import GRID, UNET, make_unet


def _inputs(seed=0):
    generator = torch.Generator().manual_seed(seed)
    unet = make_unet(projection_class_embeddings_input_dim=12).eval()
    planes = torch.randn(2, UNET["in_channels"], GRID, GRID, generator=generator)
    return unet, planes, torch.tensor([5, 900]), torch.randn(2, 3, 12, generator=generator), generator


def test_told_one_thing_it_computes_what_diffusers_network_does():
    torch.manual_seed(0)
    unet, planes, ticks, told, generator = _inputs()
    theirs = UNet2DConditionModel.from_config(unet.config).eval()
    theirs.load_state_dict(unet.state_dict())
    with torch.no_grad():
        found = unet(planes, ticks, told[:, :1].expand(-1, 3, -1), torch.rand(2, 1, GRID, GRID, generator=generator))
        unused = torch.zeros(2, 1, UNET["cross_attention_dim"])
        expected = theirs(planes, ticks, unused, class_labels=told[:, 0], return_dict=False)[0]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_blocks_are_told_of_the_thing_that_they_show():
    """Only the second thing changes: what shows nothing of it changes by what its neighbours tell it, no more."""
    torch.manual_seed(0)
    unet, planes, ticks, told, generator = _inputs()
    other = told.clone()
    other[:, 2] = torch.randn(2, 12, generator=generator)
    left = torch.zeros(2, 1, GRID, GRID)
    left[..., : GRID // 2] = 1.0

    def difference(share):
        with torch.no_grad():
            return (unet(planes, ticks, told, share) - unet(planes, ticks, other, share)).abs().mean((0, 1))

    assert not difference(torch.zeros_like(left)).any()
    assert (difference(torch.ones_like(left)) > 0.0).all()
    changed = difference(left)
    assert changed[:, : GRID // 2].mean() > 1.2 * changed[:, GRID // 2 :].mean()


def test_the_coarsest_blocks_are_told_the_sentence():
    torch.manual_seed(0)
    unet, planes, ticks, told, generator = _inputs()
    other = told.clone()
    other[:, 0] = torch.randn(2, 12, generator=generator)
    share = torch.rand(2, 1, GRID, GRID, generator=generator)
    with torch.no_grad():
        assert (unet(planes, ticks, told, share) - unet(planes, ticks, other, share)).abs().amax((0, 1)).min() > 0.0
        for resnet in (unet.down_blocks[-1].resnets[0], unet.mid_block.resnets[0], *unet.up_blocks[0].resnets):
            for tensor in (resnet.time_emb_proj.weight, resnet.time_emb_proj.bias):
                tensor.zero_()
        assert torch.equal(unet(planes, ticks, told, share), unet(planes, ticks, other, share))
