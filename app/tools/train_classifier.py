"""`python -m sds3d_app.tools.train_classifier DATA`: trains the classifier that `sds3d evaluate` scores with.

DATA has the shards that sds3d_app.tools.train_prior made; shards of held-out combinations are made beside it. The last
shards of both are only measured on.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from safetensors.torch import load_file

from sds3d.evaluation.classifier import Classifier, ClassifierNetwork, save_classifier
from sds3d.evaluation.classifier_training import carry_over, measure, train_classifier
from sds3d.priors.embedded.data import Dataset, read_shard, write_shard

TEST_SHARDS = 2  # of each kind
FIRST_HELD_OUT = 100_000  # index of the first held-out shard: an index never means two different shards


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder with shards, such as PRIOR/data")
    parser.add_argument("--held-out-shards", type=int, default=12)
    parser.add_argument("--steps", type=int, default=5000, help="of 96 images")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--start-from", type=Path, help="folder with weights to start from")
    parser.add_argument("--release", type=Path, required=True, help="folder for the weights")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)  # initialisation
    beside = arguments.data.with_name("held_out")
    for number in range(arguments.held_out_shards):
        write_shard(beside, FIRST_HELD_OUT + number, held_out=True)
    datasets = {"seen": Dataset(arguments.data, TEST_SHARDS), "held_out": Dataset(beside, TEST_SHARDS)}
    network, begun = ClassifierNetwork(), time.monotonic()
    if arguments.start_from:
        carry_over(network, load_file(arguments.start_from / "model.safetensors"))
    losses: list[float] = []
    for step, loss in enumerate(train_classifier(network, [*datasets.values()], arguments.steps, lr=arguments.lr), 1):
        losses.append(loss)
        if step % 100 == 0:
            seconds = round(time.monotonic() - begun)
            print(f"step {step} loss {sum(losses[-100:]) / 100:.4f} {seconds} s", flush=True)
    classifier = Classifier(network, {})
    accuracy = {}
    for name, data in datasets.items():
        parts = [measure(classifier, read_shard(path)) for path in data.left]
        accuracy[name] = {key: round(sum(part[key] for part in parts) / len(parts), 4) for key in parts[0]}
    save_classifier(network, accuracy, arguments.release)
    print(json.dumps(accuracy, indent=1))


if __name__ == "__main__":
    main()
