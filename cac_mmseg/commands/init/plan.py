"""The numbers of a config, from its data and the machine it is made on."""
from collections import Counter
from statistics import median
from typing import List, NamedTuple, Optional, Sequence, Tuple

from .survey import Survey

EPOCHS = 50  # of a training, within the limits of iterations
LEAST = 400  # iterations
SHARE = 0.2  # of the time of a training, for validations
SECONDS = 20  # between lines of the log
RARE = 0.01  # share of pixels below which a class weight is proposed
MAX_WEIGHT = 10.
STRIDE = 32  # crops are a multiple of it
LITTLE = 0.8  # images that would be shrunk by less keep their size


class Machine(NamedTuple):
    """What a machine can do.

    Args:
        name: In words.
        base: Config that it trains by default.
        side: Pixels of a crop at most.
        longest: Pixels of an image at most.
        batch: Crops.
        most: Iterations.
    """
    name: str
    base: str
    side: int
    longest: int
    batch: int
    most: int


CPU = Machine('a CPU', 'cac_mobilenet-v2-d8_cityscapes', 256, 512, 4, 1000)
# no weights to start from: fewer layers learn sooner
SCRATCH = CPU._replace(base='cac_r18_camvid')
GPU = Machine('a GPU', 'cac_r50_camvid', 512, 1024, 8, 20000)


class Sizes(NamedTuple):
    """How images are resized and cropped; all are height and width.

    Args:
        scale: That images are fitted into, None where they keep their size.
        crop: Of training.
        why: In words.
    """
    scale: Optional[Tuple[int, int]]
    crop: Tuple[int, int]
    why: str


def sizes(found: Survey, machine: Machine) -> Sizes:
    """Choose scale and crop from the sizes of images.

    Images of one size, or within the limit of the machine, keep their scale;
    of several sizes and larger, all get the same longer side.
    """
    shapes = [sample.size for sample in found.samples.values()]
    largest = max(max(shape) for shape in shapes)
    if len({*shapes}) == 1:
        # not for a few pixels
        ratio = min(1., machine.longest / largest)
        ratio = 1. if ratio > LITTLE else ratio
        scale = tuple(round(side * ratio) for side in shapes[0])
        return Sizes(
            scale, _crop(scale, machine.side),
            'all images are {1} x {0}'.format(*shapes[0]) +
            f', and made {1 / ratio:.1f} times smaller' * (ratio < 1))
    middle = tuple(int(median(side)) for side in zip(*shapes))
    smallest = min(min(shape) for shape in shapes)
    between = f'images have sides of {smallest} to {largest} pixels'
    if largest <= machine.longest / LITTLE:
        return Sizes(None, _crop(middle, machine.side),
                     f'{between}, and keep their scale')
    ratio = machine.longest / max(middle)
    fitted = tuple(round(side * ratio) for side in middle)
    return Sizes((machine.longest, ) * 2, _crop(fitted, machine.side),
                 f'{between}; all are fitted into {machine.longest}')


def _crop(size: Sequence[int], most: int) -> Tuple[int, int]:
    return tuple(
        min(most, max(STRIDE, side // STRIDE * STRIDE)) for side in size)


class Schedule(NamedTuple):
    """Iterations of a training, between validations, and between log lines."""
    iterations: int
    validation: int
    log: int


def schedule(images: int, machine: Machine, step: float,
             validation: float) -> Schedule:
    """Choose how long to train, by the number of images.

    The time of an iteration decides how often there is a line or a validation.

    Args:
        images: For training.
        machine: That trains.
        step: Seconds of an iteration.
        validation: Seconds of a validation.
    """
    wanted = EPOCHS * images // machine.batch
    iterations = min(max(wanted, LEAST), machine.most) // 20 * 20
    # the last iteration is validated; a fifth of the time at most goes there
    count = next((n for n in (10, 5, 4, 2)
                  if n * validation <= SHARE * iterations * step), 1)
    return Schedule(iterations, iterations // count,
                    int(min(max(SECONDS / step, 1), 50)))


def class_weights(counts: Counter, classes: int) -> Optional[List[float]]:
    """Propose weights for a loss where a class is rare, else None.

    Of a class the square root of the median share over its own.
    """
    total = max(sum(counts.values()), 1)
    shares = [counts[i] / total for i in range(classes)]
    present = [share for share in shares if share]
    if not present or min(present) >= RARE:
        return None
    middle = median(present)
    return [
        round(min((middle / share)**0.5, MAX_WEIGHT), 2) if share else 1.
        for share in shares
    ]
