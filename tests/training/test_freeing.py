"""What a run held is freed with its last reference: no cycle keeps tensors until Python's garbage collector runs."""

from weakref import ref

import pytest
import torch
from torch import nn

from sds3d.priors.hub import embeddings
from sds3d.scenes.particles import build_scene
from sds3d.training.session import Session
from sds3d.training.trainer import Trainer
from tests.priors.hub.conftest import cache, model_folder  # noqa: F401

pytestmark = pytest.mark.usefixtures("no_collector")

RUNS = {
    "sds": {},
    "vsd": {"guidance": "vsd"},
    "particles": {"guidance": "vsd", "particles": 2},
    "nerf": {"scene": {"name": "nerf"}, "loss_weights": {}},
    "learned background": {"scene": {"background": {"name": "learned"}}},
}


@pytest.mark.parametrize("run", RUNS)
def test_a_trainer_frees_its_scene_critic_and_prior(small_config, run):
    config, generator = small_config(**RUNS[run]), torch.Generator().manual_seed(0)
    prior = config.prior.build("cpu")
    scene = build_scene(config.scene, config.particles, generator)
    trainer = Trainer(config, scene, prior, generator, torch.device("cpu"))
    trainer.advance()
    parts = {"trainer": trainer, "scene": scene, "optimizer": trainer.optimizer, "prior": prior}
    parts |= {} if trainer.state is None else {"critic": trainer.state}
    held = {name: ref(part) for name, part in parts.items()}
    del parts, trainer, scene, prior
    assert [name for name, part in held.items() if part() is not None] == []


def test_a_session_frees_its_prior_and_scenes(small_config, tmp_path):
    session = Session(small_config(steps=2, scene={"name": "image"}, loss_weights={}), tmp_path / "run")
    for _ in session.run():
        pass
    held = {"prior": ref(session.prior()), "scene": ref(session.scene())}
    del session
    assert [name for name, part in held.items() if part() is not None] == []


def test_a_model_frees_its_networks_copies_and_text_encoders(model_folder, small_config, monkeypatch):  # noqa: F811
    """Text encoders at once, before the network is asked: they are the largest part of some models."""
    held, load = {}, embeddings.load_pipeline

    def watched(*inputs):
        pipeline = load(*inputs)
        modules = {name: part for name, part in pipeline.components.items() if isinstance(part, nn.Module)}
        held.update({name: ref(part) for name, part in modules.items()})
        return pipeline

    monkeypatch.setattr(embeddings, "load_pipeline", watched)
    prior = small_config(prior={"name": "diffusers", "model": str(model_folder("sd3"))}).prior.build("cpu")
    prior.embed(["a red mug", ""])
    assert set(held) == {"text_encoder", "text_encoder_2", "text_encoder_3"}
    assert [name for name, part in held.items() if part() is not None] == []
    copy = prior.trainable_copy(2, torch.Generator())
    held = {"copy": ref(copy), "its network": ref(copy._network[0])}
    del copy
    assert [name for name, part in held.items() if part() is not None] == []
    held = {"prior": ref(prior), "network": ref(prior.network), "VAE": ref(prior.vae)}
    del prior
    assert [name for name, part in held.items() if part() is not None] == []
