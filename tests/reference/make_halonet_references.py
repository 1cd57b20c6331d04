"""Writes random weights of the HaloNets of timm, and what they compute.

Runs in the environment of requirements.txt, without this package and without
NATTEN:

    python tests/reference/make_halonet_references.py FOLDER
"""

import argparse
import pathlib

import numpy as np
import safetensors.torch
import timm
import torch
from results import write_results

NETWORKS = {
    "HaloNet26T": "halonet26t",
    "HaloNet50TS": "halonet50ts",
    "SEHaloNet33TS": "sehalonet33ts",
    "ECAHaloNeXt26TS": "eca_halonext26ts",
}
# That of the published networks, and another multiple of 256.
SIZES = ((256, 256), (256, 512))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=pathlib.Path)
    folder = parser.parse_args().folder
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    for name, original in NETWORKS.items():
        model = timm.create_model(original)
        randomize(model)
        features = outputs_of_levels(model)
        target = folder / name
        target.mkdir(parents=True, exist_ok=True)
        safetensors.torch.save_model(model, target / "model.safetensors")
        for number, size in enumerate(SIZES):
            images = random.normal(size=(2, 3, *size)).astype("float32")
            upstream = random.normal(size=(2, 1000)).astype("float32")
            model.eval()
            with torch.no_grad():
                logits = model(torch.from_numpy(images)).numpy()
            maps = dict(features)
            # A step of training, which normalizes with the batch. In double
            # precision, because rounding grows from level to level.
            model.double().train()
            model.zero_grad()
            outputs = model(torch.from_numpy(images).double())
            (outputs * torch.from_numpy(upstream)).sum().backward()
            write_results(
                target / f"results_{number}.npz",
                images,
                logits,
                upstream,
                maps,
                model,
            )
            # The step has moved the statistics.
            model.float()
            safetensors.torch.load_model(model, target / "model.safetensors")


def randomize(model):
    """Makes weights and statistics as after training: no zeros, no ones."""
    with torch.no_grad():
        for weight in model.parameters():
            weight += (0.3 if weight.ndim == 1 else 0.02) * torch.randn_like(
                weight
            )
        for name, statistics in model.named_buffers():
            if name.endswith("running_mean"):
                statistics += 0.3 * torch.randn_like(statistics)
            elif name.endswith("running_var"):
                statistics *= 0.5 + torch.rand_like(statistics)


def outputs_of_levels(model):
    """Returns a dict that each call fills with the maps of the four levels."""
    maps = {}
    for level, stage in enumerate(model.stages, start=1):

        def keep(module, inputs, outputs, level=level):
            maps[level] = outputs.detach().numpy().transpose(0, 2, 3, 1)

        stage.register_forward_hook(keep)
    return maps


if __name__ == "__main__":
    main()
