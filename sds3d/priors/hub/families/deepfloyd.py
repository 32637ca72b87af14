"""DeepFloyd IF, stage I (2023): 64 pixels and no latent, words by T5. No VAE means no blur in the gradients."""

from sds3d.priors.hub.families.sd import StableDiffusion


class DeepFloyd(StableDiffusion):
    name = "DeepFloyd IF, stage I"
    pipelines = ("IFPipeline",)
    latent = False
