"""Trains a small ResNet with self-attention to classify images.

    python examples/train_classifier.py                     # digits, 1 minute
    python examples/train_classifier.py --data DIR          # a folder of images
    python examples/train_classifier.py --data tfds:cifar10

Needs `pip install "keras_sasa[examples]"`; results are in examples/README.md.
The first command downloads nothing: scikit-learn brings its 1,797 digits. A
folder has a folder of images for each class, either directly (a fifth is then
held out) or in `train` and `validation` (or `val`, or `test`). Written are the
model, pictures of its training and of its attention; then a new process loads
the model and must find the same accuracy.
"""

import argparse
import dataclasses
import importlib
import pathlib
import subprocess
import sys
import tempfile

import keras
import tensorflow as tf

from keras_sasa import SelfAttention2D
from keras_sasa.applications import ResNet
from keras_sasa.visualize import attention_maps, plot_attention, plot_history

NUM_HEADS = 4
HELD_OUT = 0.2
# Which images are held out never depends on --seed.
SPLIT_SEED = 0
# A larger set of images is decoded anew in every epoch.
CACHE_BYTES = 2 * 2**30

DEFAULTS = {
    "digits": {
        "epochs": 25,
        "batch_size": 32,
        "image_size": 8,
        "width": 16,
        "blocks": [1, 1],
        "learning_rate": 6e-3,
    },
    "photos": {
        "epochs": 5,
        "batch_size": 64,
        "image_size": 32,
        "width": 32,
        "blocks": [1, 1, 1],
        "learning_rate": 2e-3,
    },
}


@dataclasses.dataclass
class Data:
    """Images and labels, not batched; pixels from 0 to `white`."""

    train: tf.data.Dataset
    test: tf.data.Dataset
    shape: tuple
    classes: int
    white: float = 255.0

    @property
    def mirror(self):
        """Whether a mirrored image is of the same class: not for digits."""
        return self.shape[-1] == 3


def main(argv=None):
    options = parse(argv)
    keras.utils.set_random_seed(options.seed)
    if options.evaluate:
        return print(f"test accuracy: {evaluate_file(options):.6f}")
    prepare_output(options.output)
    needs("matplotlib")
    data = load_data(options)
    model = build_model(data, options)
    history = train(model, data, options)
    model_path = options.output / "model.keras"
    model.save(model_path)
    draw(model, history, data, options)

    accuracy = evaluate(model, data, options)
    reloaded = evaluate_in_new_process(model_path, options)
    print(f"parameters: {model.count_params():,}")
    print(f"written to: {options.output}")
    print(f"test accuracy: {accuracy:.6f}")
    print(f"test accuracy, reloaded in a new process: {reloaded:.6f}")
    if abs(accuracy - reloaded) > 1e-6:
        raise SystemExit("The reloaded model is not as accurate.")


def parse(argv):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add = parser.add_argument
    add("--data", default="digits", help="digits, a folder, or tfds:NAME")
    add("--epochs", type=positive, help="passes over the images")
    add("--batch-size", type=positive, help="images in a step")
    add("--image-size", type=positive, help="images are resized to this side")
    add("--width", type=positive, help="channels of the first group")
    add("--blocks", type=positive, nargs="+", help="blocks of each group")
    add("--output", type=pathlib.Path, help="folder, default runs/NAME")
    add("--seed", type=int, default=0, help="of weights and order of images")
    add("--evaluate", metavar="MODEL", help="only evaluate this .keras file")
    options = parser.parse_args(argv)

    kind = "digits" if options.data == "digits" else "photos"
    for name, value in DEFAULTS[kind].items():
        if getattr(options, name, None) is None:
            setattr(options, name, value)
    if options.output is None:
        name = pathlib.PurePath(options.data.removeprefix("tfds:")).name
        options.output = pathlib.Path("runs") / (name or "folder")
    if options.width % (2 * NUM_HEADS):
        parser.error(
            f"--width must be a multiple of {2 * NUM_HEADS}. "
            f"Received: {options.width}"
        )
    if len(options.blocks) > 4:
        parser.error(
            "--blocks must be one to four numbers, the blocks of each group. "
            f"Received: {options.blocks}"
        )
    return options


def positive(text):
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not above 0")
    return value


def needs(package, distribution=None):
    """Imports an optional package, or ends with how to install it."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise SystemExit(
            f"{distribution or package} is needed and cannot be imported "
            f'({error}): pip install "keras_sasa[examples]"'
        ) from error


def prepare_output(folder):
    """Finds out before the training whether there is a place to write to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise SystemExit(f"--output cannot be written to: {error}") from error


def load_data(options):
    if options.data == "digits":
        data = load_digits(options)
    elif options.data.startswith("tfds:"):
        data = load_tfds(options)
    else:
        data = load_folder(options)
    return dataclasses.replace(
        data, train=small_in_memory(data.train), test=small_in_memory(data.test)
    )


def load_digits(options):
    needs("sklearn", "scikit-learn")
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8, 1).astype("uint8")
    train_images, test_images, train_labels, test_labels = train_test_split(
        images,
        labels,
        test_size=HELD_OUT,
        stratify=labels,
        random_state=SPLIT_SEED,
    )
    train, test = (
        resize(tf.data.Dataset.from_tensor_slices(pair), options.image_size)
        for pair in ((train_images, train_labels), (test_images, test_labels))
    )
    shape = (options.image_size, options.image_size, 1)
    return Data(train, test, shape, classes=10, white=16.0)


def load_folder(options):
    folder = pathlib.Path(options.data)
    if not folder.is_dir():
        raise SystemExit(
            f"--data must be digits, tfds:NAME or a folder; there is no folder "
            f"{options.data!r}."
        )

    def load(path, **arguments):
        return keras.utils.image_dataset_from_directory(
            path,
            image_size=(options.image_size, options.image_size),
            batch_size=None,
            seed=SPLIT_SEED,
            verbose=False,
            **arguments,
        )

    held_out = [
        folder / name
        for name in ("validation", "val", "test")
        if (folder / name).is_dir()
    ]
    try:
        if (folder / "train").is_dir() and held_out:
            train = load(folder / "train")
            names = train.class_names
            test = load(held_out[0], shuffle=False, class_names=names)
        else:
            train, test = load(folder, validation_split=HELD_OUT, subset="both")
            names = train.class_names
    except ValueError as error:
        raise SystemExit(
            f"--data {options.data} is not a folder of one folder of images "
            f"for each class: {error}"
        ) from error
    if len(names) < 2:
        raise SystemExit(
            f"--data {options.data} must hold two classes or more, each in its "
            f"own folder. Received: {names}"
        )
    shape = (options.image_size, options.image_size, 3)
    return Data(to_bytes(train), to_bytes(test), shape, len(names))


def load_tfds(options):
    tfds = needs("tensorflow_datasets", "tensorflow-datasets")
    name = options.data.removeprefix("tfds:")
    try:
        builder = tfds.builder(name)
        features = builder.info.features
        if builder.info.supervised_keys != ("image", "label"):
            raise SystemExit(
                f"--data {options.data} is not a set of images with one label "
                f"each. Received: {list(features)}"
            )
        builder.download_and_prepare()
        splits = [s for s in ("test", "validation") if s in builder.info.splits]
        percent = round(100 * (1 - HELD_OUT))
        train, test = builder.as_dataset(
            split=["train", splits[0]]
            if splits
            else [f"train[:{percent}%]", f"train[{percent}%:]"],
            as_supervised=True,
        )
    except Exception as error:
        # What can go wrong in a download has no common type. Only the first
        # line: the others list every known data set.
        reason = str(error).strip().partition("\n")[0]
        raise SystemExit(
            f"--data {options.data} cannot be loaded: {reason}"
        ) from error
    shape = (options.image_size,) * 2 + (features["image"].shape[-1],)
    return Data(
        resize(train, options.image_size),
        resize(test, options.image_size),
        shape,
        features["label"].num_classes,
    )


def resize(dataset, side):
    return to_bytes(
        dataset.map(
            lambda image, label: (tf.image.resize(image, (side, side)), label),
            tf.data.AUTOTUNE,
        )
    )


def to_bytes(dataset):
    def convert(image, label):
        return tf.cast(tf.round(image), "uint8"), label

    return dataset.map(convert, tf.data.AUTOTUNE)


def small_in_memory(dataset):
    number = dataset.cardinality().numpy()
    size = tf.TensorShape(dataset.element_spec[0].shape).num_elements()
    return dataset.cache() if 0 <= number * size <= CACHE_BYTES else dataset


def batches(dataset, options):
    return dataset.batch(options.batch_size).prefetch(tf.data.AUTOTUNE)


def training_batches(data, options):
    """Images shifted by up to an eighth of their side, photos mirrored."""
    side = options.image_size

    def augment(image, label):
        image = tf.image.resize_with_crop_or_pad(
            image, side + side // 4, side + side // 4
        )
        image = tf.image.random_crop(image, data.shape)
        if data.mirror:
            image = tf.image.random_flip_left_right(image)
        return image, label

    shuffled = data.train.shuffle(10_000, seed=options.seed)
    return batches(shuffled.map(augment), options)


def build_model(data, options):
    """The pixels are scaled by the model, so that a file needs no more."""
    images = keras.Input(data.shape, name="images")
    small = options.image_size <= 64
    return ResNet(
        options.blocks,
        stem="small" if small else "attention",
        # A window of 7 is wider than most of an 8x8 digit.
        kernel_size=7 if options.image_size >= 16 else 5,
        num_heads=NUM_HEADS,
        width_multiplier=options.width / 64,
        input_tensor=keras.layers.Rescaling(2 / data.white, -1.0)(images),
        classes=data.classes,
        name="classifier",
    )


def train(model, data, options):
    dataset = training_batches(data, options)
    steps = options.epochs * int(dataset.cardinality())
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0,
        decay_steps=steps - steps // 10,
        warmup_target=options.learning_rate,
        warmup_steps=steps // 10,
    )
    model.compile(
        keras.optimizers.AdamW(schedule, weight_decay=0.02),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    print(
        f"{int(data.train.cardinality())} images to train, "
        f"{int(data.test.cardinality())} to test, {data.classes} classes, "
        f"{model.count_params():,} parameters"
    )
    return model.fit(
        dataset,
        validation_data=batches(data.test, options),
        epochs=options.epochs,
        shuffle=False,  # The dataset does it.
    )


def draw(model, history, data, options):
    """Writes the training and, of the outer layers, the attention."""
    plot_history(history).savefig(options.output / "training.png", dpi=150)
    images = one_of_each_class(data.test, number=4)
    names = [
        layer.name
        for layer in model.layers
        if isinstance(layer, SelfAttention2D)
    ]
    for place, name in (("first", names[0]), ("last", names[-1])):
        maps = attention_maps(model, images, name)[name]
        row, column = maps.shape[1] // 2, maps.shape[2] // 2
        plot_attention(
            images,
            maps[:, row, column],
            [(row, column)] * len(images),
            input_size=maps.shape[1:3],
            title=f"attention of the {place} layer",
        ).savefig(options.output / f"attention_{place}.png", dpi=150)


def one_of_each_class(dataset, number):
    images = {}
    for image, label in dataset.as_numpy_iterator():
        images.setdefault(int(label), image)
        if len(images) == number:
            break
    return tf.stack(list(images.values())).numpy()


def evaluate(model, data, options):
    _, accuracy = model.evaluate(batches(data.test, options), verbose=0)
    return accuracy


def evaluate_file(options):
    try:
        model = keras.saving.load_model(options.evaluate)
    except (OSError, ValueError) as error:
        raise SystemExit(
            f"--evaluate {options.evaluate} cannot be loaded: {error}"
        ) from error
    options.image_size = model.input_shape[1]
    return evaluate(model, load_data(options), options)


def evaluate_in_new_process(model_path, options):
    command = [sys.executable, __file__, "--evaluate", str(model_path)]
    command += ["--data", options.data]
    command += ["--batch-size", str(options.batch_size)]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if result.returncode:
        raise SystemExit(f"The new process failed: {' '.join(command)}")
    return float(result.stdout.split()[-1])


if __name__ == "__main__":
    main()
