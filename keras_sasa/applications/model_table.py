"""The published networks: size, accuracy and files, one row for each."""

import dataclasses
from collections.abc import Mapping
from typing import Any

NAT_PAPER = "arXiv:2204.07143"
DINAT_PAPER = "arXiv:2209.15001"
PAPER = "arXiv:1906.05909"
# The authors of timm trained the HaloNets and published their accuracy.
TIMM = ("timm", "Apache-2.0")


@dataclasses.dataclass(frozen=True)
class PublishedNetwork:
    """A network of `keras_sasa.applications` for the classes of ImageNet.

    Attributes:
        name: Name of the function.
        parameters: Number of parameters, with those that are not trained.
        flops: FLOPs of an image, as `keras_sasa.profile` counts them; a
            multiplication and an addition count as two.
        accuracy: Published accuracy on ImageNet in percent.
        source: Where it is published.
        licence: Licence of the weights, or `None` without published weights.
        megabytes: Size of the file of weights, or `None`.
        image_size: Side of the images in pixels.
        options: Further arguments of the function.
    """

    name: str
    parameters: int
    flops: int
    accuracy: float
    source: str
    licence: str | None = None
    megabytes: int | None = None
    image_size: int = 224
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def label(self) -> str:
        """The name, with the options that differ from its defaults."""
        options = "".join(
            f", {key}={value}" for key, value in self.options.items()
        )
        return f"{self.name}{options}"


_ROWS = (
    ("SASAResNet26", 10_372_712, 4_511_100_752, 75.8, PAPER),
    ("SASAResNet38", 14_232_232, 5_762_015_480, 77.1, PAPER),
    ("SASAResNet50", 18_091_752, 7_012_930_208, 77.4, PAPER),
    ("ConvResNet26", 13_726_632, 4_707_219_920, 74.5, PAPER),
    ("ConvResNet38", 19_668_392, 6_462_426_576, 76.2, PAPER),
    ("ConvResNet50", 25_610_152, 8_217_633_232, 76.9, PAPER),
    ("NATMini", 19_984_174, 5_429_531_376, 81.8, NAT_PAPER, "MIT", 80),
    ("NATTiny", 27_901_582, 8_646_051_312, 83.2, NAT_PAPER, "MIT", 112),
    ("NATSmall", 50_743_297, 15_628_002_560, 83.7, NAT_PAPER, "MIT", 203),
    ("NATBase", 89_769_652, 27_465_384_976, 84.3, NAT_PAPER, "MIT", 359),
    ("DiNATMini", 19_984_174, 5_429_531_376, 81.8, DINAT_PAPER, "MIT", 80),
    ("DiNATTiny", 27_901_582, 8_646_051_312, 82.7, DINAT_PAPER, "MIT", 112),
    ("DiNATSmall", 50_719_681, 15_621_906_176, 83.8, DINAT_PAPER, "MIT", 203),
    ("DiNATBase", 89_769_652, 27_465_384_976, 84.4, DINAT_PAPER, "MIT", 359),
    ("DiNATLarge", 200_943_514, 61_070_030_384, 86.6, DINAT_PAPER, "MIT", 804),
    (
        *("DiNATLarge", 200_943_514, 179_465_149_904, 87.4),
        *(DINAT_PAPER, "MIT", 804, 384, {"dilations": (13, 6, 3, 1)}),
    ),
    (
        *("DiNATLarge", 201_144_250, 184_705_551_824, 87.5),
        *(DINAT_PAPER, "MIT", 805, 384, {"kernel_size": 11}),
    ),
    ("HaloNet26T", 12_511_248, 6_377_195_472, 79.1, *TIMM, 50, 256),
    ("HaloNet50TS", 22_786_512, 10_580_623_312, 81.6, *TIMM, 91, 256),
    ("SEHaloNet33TS", 13_726_768, 7_091_150_672, 81.0, *TIMM, 55, 256),
    ("ECAHaloNeXt26TS", 10_787_845, 4_877_082_960, 79.5, *TIMM, 43, 256),
)
PUBLISHED_NETWORKS = tuple(PublishedNetwork(*row) for row in _ROWS)


def pretrained_image_sizes() -> dict[str, int]:
    """Returns the networks that have public weights.

    Returns:
        A dict from the name to the side of the images of its first weights.
    """
    return {
        row.name: row.image_size
        for row in reversed(PUBLISHED_NETWORKS)
        if row.licence
    }
