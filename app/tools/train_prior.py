"""`python -m sds3d_app.tools.train_prior`: trains the embedded prior, resumably, on pictures drawn as it goes.

The folder has state.safetensors and state.json, which are all that the same command needs to resume, here or elsewhere,
and log.jsonl. For days beside other work: `nice -n 19`.
"""

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path

import torch

from sds3d.priors.embedded.training import TrainConfig, Trainer, save_weights, warm_start

from ..signals import Interruption, stopped_by_signals


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the training state lives (outside the repository)")
    parser.add_argument("--minutes", type=float, default=60.0, help="stop after this long")
    parser.add_argument("--cooldown", action="store_true", help="let the learning rate fall to zero over --steps")
    parser.add_argument("--steps", type=int, default=0, help="stop after this many steps (0: no limit)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=48, help="images per step, for a new run")
    parser.add_argument("--lr", type=float, default=1e-3, help="learning rate, for a new run")
    parser.add_argument("--warmup", type=int, default=300, help="steps until the learning rate is whole, for a new run")
    parser.add_argument("--seed", type=int, default=0, help="of a new run's objects and noise")
    parser.add_argument("--part-weight", type=float, default=4.0, help="most that a small part counts, for a new run")
    parser.add_argument("--start-from", type=Path, help="released weights to start a new run from")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action="store_true", help="torch.compile the network: about 13%% faster")
    parser.add_argument("--release", type=Path, help="write the averaged weights as float16 to this folder and stop")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.release:
        trainer = Trainer.load(arguments.folder, torch.device("cpu"))
        made = {"steps": trainer.step, "images": trainer.images, "settings": asdict(trainer.config)}
        save_weights(trainer.average, arguments.release, made)
        print(f"{arguments.release}: weights after {trainer.images} images")
    else:
        with stopped_by_signals() as interruption:
            train(arguments, interruption)


def train(arguments: argparse.Namespace, interruption: Interruption) -> None:
    device = torch.device(arguments.device)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    if (arguments.folder / "state.json").exists():
        trainer = Trainer.load(arguments.folder, device)
    else:
        names = ("batch", "lr", "warmup", "seed", "part_weight")
        settings = {name: getattr(arguments, name) for name in names}
        trainer = Trainer(TrainConfig(**settings, start_from=str(arguments.start_from or "")), device)
        if arguments.start_from:
            warm_start(trainer, arguments.start_from)
    if arguments.compile:
        text = trainer.networks.text
        for network in (trainer.networks.unet, text.painter, text.field):
            network.compile()
    begin, begin_step, mark, recent = time.monotonic(), trainer.step, time.monotonic(), []
    for record in trainer.train(arguments.steps if arguments.cooldown else 0):
        recent.append(record)
        done = interruption.requested or time.monotonic() - begin > 60.0 * arguments.minutes
        done = done or (arguments.steps > 0 and trainer.step - begin_step >= arguments.steps)
        if trainer.step % 100 == 0 or done:
            rate = len(recent) * trainer.config.batch / (time.monotonic() - mark)
            losses = record.keys() - {"step", "images"}
            means = {name: sum(row[name] for row in recent) / len(recent) for name in losses}
            line = {**record, **means, "images_per_s": rate, "average": trainer.probe()}
            with open(arguments.folder / "log.jsonl", "a") as log:
                print(json.dumps(line), file=log)
            print(json.dumps(line), flush=True)
            mark, recent = time.monotonic(), []
        if trainer.step % 500 == 0 or done:
            trainer.save(arguments.folder)
        if done:
            break


if __name__ == "__main__":
    main()
