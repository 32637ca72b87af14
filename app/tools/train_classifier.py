"""`python -m sds3d_app.tools.train_classifier`: trains the classifier that `sds3d evaluate` scores with.

Its pictures are drawn as it goes, held-out combinations among them; what is measured on, it never sees.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from safetensors.torch import load_file

from sds3d.evaluation.classifier import Classifier, ClassifierNetwork, save_classifier
from sds3d.evaluation.classifier_training import carry_over, measure, train_classifier
from sds3d.priors.embedded.data import make_batch

TEST_SEED, TEST_OBJECTS, TEST_VIEWS = -2, 500, 6  # of each kind


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=5000, help="of 96 images")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--start-from", type=Path, help="folder with weights to start from")
    parser.add_argument("--release", type=Path, required=True, help="folder for the weights")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)  # initialisation
    network, begun = ClassifierNetwork(), time.monotonic()
    if arguments.start_from:
        carry_over(network, load_file(arguments.start_from / "model.safetensors"))
    losses: list[float] = []
    for step, loss in enumerate(train_classifier(network, arguments.steps, lr=arguments.lr), 1):
        losses.append(loss)
        if step % 100 == 0:
            seconds = round(time.monotonic() - begun)
            print(f"step {step} loss {sum(losses[-100:]) / 100:.4f} {seconds} s", flush=True)
    classifier = Classifier(network, {})
    accuracy = {}
    for name in ("seen", "held_out"):
        batch = make_batch(TEST_SEED, 0, TEST_OBJECTS, TEST_VIEWS, held_out=name == "held_out")
        accuracy[name] = measure(classifier, batch, TEST_VIEWS)
    save_classifier(network, accuracy, arguments.release)
    print(json.dumps(accuracy, indent=1))


if __name__ == "__main__":
    main()
