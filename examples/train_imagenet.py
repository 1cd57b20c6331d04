"""Trains ResNet-50 with self-attention on ImageNet, by the paper's recipe.

    python examples/train_imagenet.py --strategy mirrored --batch-size 512 \
        --mixed-precision bfloat16
    python examples/train_imagenet.py --strategy tpu --tpu NAME
    python examples/train_imagenet.py --network resnet50_conv12_attention34
    python examples/train_imagenet.py --data DIR --resume

THE FULL TRAINING HAS NOT BEEN RUN with this script: 130 epochs of 1.28 million
images were out of reach. A few steps on made images in ImageNet's format have
been run. They show that the parts fit together, and nothing about the accuracy.
The summary that is printed first marks the values from the paper.

TensorFlow Datasets reads ImageNet from two archives that you download yourself
(https://www.tensorflow.org/datasets/catalog/imagenet2012). `--data` also takes
a folder with `train` and `validation`. `--validation-split 0.04` validates on
4 % of the training images, as the paper does for its ablations. Without it,
ImageNet's own 50,000 validation images are used.
"""

from keras_sasa import command_line
from keras_sasa.applications import CONFIGURATIONS
from keras_sasa.training import IMAGENET

NETWORK = "resnet50_attention"


def main(argv=None):
    parser = command_line.make_parser(
        __doc__,
        data="tfds:imagenet2012",
        network=NETWORK,
        recipe="imagenet",
        cases={"imagenet": (CONFIGURATIONS[NETWORK], IMAGENET)},
    )
    command_line.add_selection(parser)
    options = command_line.parse_options(parser, argv)
    recipe = command_line.resolve_recipe(options, IMAGENET)
    network = command_line.resolve_network(options, CONFIGURATIONS[NETWORK])
    *_, folder = command_line.train(options, network, recipe)
    print(f"written to: {folder}")


if __name__ == "__main__":
    command_line.run(main)
