"""A UNet whose blocks are told of the thing that they show."""

import json
import shutil
import subprocess
import sys
from importlib import resources

import pytest
import torch
from diffusers import DDPMScheduler, UNet2DConditionModel

from sds3d.errors import PriorUnavailable
from sds3d.priors.embedded.network import GRID, UNET, alphas_cumprod, make_unet
from sds3d.priors.embedded.prior import load_embedded
from sds3d.priors.embedded.unet import ARCHITECTURE, ThingUNet


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
        unused = torch.zeros(2, 1, ARCHITECTURE["cross_attention_dim"])
        expected = theirs(planes, ticks, unused, class_labels=told[:, 0], return_dict=False)[0]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_diffusers_reads_the_files_that_ship():
    path = resources.files("sds3d_assets") / "embedded_prior"
    theirs, report = UNet2DConditionModel.from_pretrained(str(path / "unet"), output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    ours = load_embedded()
    for name, value in theirs.state_dict().items():
        assert torch.equal(
            ours.unet.state_dict()[name].float(), value.to(ours.unet.state_dict()[name].dtype).float()
        ), name
    alphas = DDPMScheduler.from_pretrained(str(path / "scheduler")).alphas_cumprod
    assert torch.equal(alphas, alphas_cumprod())


def test_diffusers_reads_what_is_saved(tmp_path):
    unet = make_unet()
    unet.save(tmp_path)
    theirs = UNet2DConditionModel.from_pretrained(tmp_path)
    for name, value in ThingUNet.load(tmp_path).state_dict().items():
        assert torch.equal(value, unet.state_dict()[name].half().float()), name
        assert torch.equal(value, theirs.state_dict()[name].float()), name


@pytest.mark.parametrize(
    ("file", "name", "value"),
    [
        ("unet/config.json", "act_fn", "gelu"),
        ("unet/config.json", "flip_sin_to_cos", False),
        ("unet/config.json", "mid_block_type", "UNetMidBlock2DCrossAttn"),
        ("scheduler/scheduler_config.json", "beta_schedule", "linear"),
        ("scheduler/scheduler_config.json", "prediction_type", "epsilon"),
        ("scheduler/scheduler_config.json", "rescale_betas_zero_snr", True),
    ],
)
def test_a_network_of_another_kind_is_refused(file, name, value, tmp_path):
    """Its weights might fit, and the pictures would be wrong."""
    shutil.copytree(str(resources.files("sds3d_assets") / "embedded_prior"), tmp_path / "prior")
    path = tmp_path / "prior" / file
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))
    with pytest.raises(PriorUnavailable, match=f"{file} has {name} {value}, where"):
        load_embedded(str(tmp_path / "prior"))


def test_loading_it_needs_no_diffusers():
    """Importing that takes seconds, which everyone who asks for an object would wait."""
    code = "import sys; from sds3d.priors.embedded.prior import load_embedded; load_embedded(); print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"diffusers", "transformers"} & set(modules)


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
