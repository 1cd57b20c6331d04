"""Writes random weights of the original NAT and DiNAT, and what they compute.

Runs in the environment of requirements.txt, without this package:

    python tests/reference/make_references.py FOLDER
"""

import argparse
import pathlib

import numpy as np
import torch
from results import write_results

# Names of torch.cuda that NATTEN 0.17.5 imports and a build for CPU lacks.
torch.cuda._device_t = object
torch.cuda.get_device_capability = lambda device=None: (0, 0)

import natten  # noqa: E402
import natten.functional  # noqa: E402

# Names of NATTEN that transformers 4.53 imports.
natten.functional.natten2dqkrpb = (
    lambda query, key, rpb, kernel_size, dilation: natten.functional.na2d_qk(
        query, key, kernel_size, dilation, rpb=rpb
    )
)
natten.functional.natten2dav = lambda weights, value, kernel_size, dilation: (
    natten.functional.na2d_av(weights, value, kernel_size, dilation)
)

from transformers import (  # noqa: E402
    DinatConfig,
    DinatForImageClassification,
    NatConfig,
    NatForImageClassification,
)
from transformers.models.deprecated.nat import modeling_nat  # noqa: E402
from transformers.models.dinat import modeling_dinat  # noqa: E402

for module in (modeling_nat, modeling_dinat):
    module.natten2dqkrpb = natten.functional.natten2dqkrpb
    module.natten2dav = natten.functional.natten2dav
    module.requires_backends = lambda *arguments: None

MINI = {
    "depths": [3, 4, 6, 5],
    "embed_dim": 64,
    "mlp_ratio": 3.0,
    "num_heads": [2, 4, 8, 16],
    "drop_path_rate": 0.0,
    "num_labels": 1000,
}
NETWORKS = {
    "NATMini": (NatForImageClassification, NatConfig(**MINI)),
    "DiNATMini": (
        DinatForImageClassification,
        DinatConfig(
            **MINI,
            dilations=[[1, 8, 1], [1, 4, 1, 4], [1, 2] * 3, [1] * 5],
        ),
    ),
}
# That of the published networks, no multiple of 32, and one whose maps are
# smaller than the windows.
SIZES = ((224, 224), (232, 288), (160, 192))


def outputs_of_levels(model):
    """Returns a dict that each call fills with the maps of the four levels."""
    maps = {}
    encoder = getattr(model, model.base_model_prefix).encoder
    for level, part in enumerate(encoder.levels, start=1):

        def keep(module, inputs, outputs, level=level):
            maps[level] = outputs[0].detach().numpy()

        # The level itself ends with the convolution of the next one.
        part.layers[-1].register_forward_hook(keep)
    return maps


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=pathlib.Path)
    folder = parser.parse_args().folder
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    for name, (build, config) in NETWORKS.items():
        model = build(config).eval()
        with torch.no_grad():
            for weight in model.parameters():
                # As they are after training: no zeros, no ones.
                weight += 0.05 * torch.randn_like(weight)
        features = outputs_of_levels(model)
        target = folder / name
        model.save_pretrained(target, safe_serialization=False)
        for number, size in enumerate(SIZES):
            images = random.normal(size=(1, 3, *size)).astype("float32")
            results = model(torch.from_numpy(images))
            upstream = random.normal(size=(1, 1000)).astype("float32")
            model.zero_grad()
            (results.logits * torch.from_numpy(upstream)).sum().backward()
            write_results(
                target / f"results_{number}.npz",
                images,
                results.logits.detach().numpy(),
                upstream,
                features,
                model,
            )


if __name__ == "__main__":
    main()
