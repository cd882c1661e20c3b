"""Draw the scenes of ContextShapes and Crossing, around a traffic signal."""
from functools import partial
from typing import Callable, Iterator, List, Sequence, Tuple

import cv2
import numpy as np
from numpy.random import RandomState

SPLITS = ('train', 'val', 'test')
HEIGHT, WIDTH = 128, 192
BACKGROUND, TREE, WAITING, MOVING = range(4)
SIGNAL = 26  # columns at the border that belong to the signal
# Columns between the signal and any car. A network of the first two ResNet-18
# stages at stride 8, a 3x3 convolution and bilinear upsampling sees at most
# 57 + 8 to one side; tests/datasets differentiates one to prove it.
GAP = 66
MOST_TRIES = 100  # to find room for an object of a crossing

RED, GREEN, UNLIT = (40, 40, 250), (60, 230, 60), (50, 50, 50)  # BGR
# lowest and highest value of each channel
ANY = ((30, 239), ) * 3
COLD = ((170, 239), (60, 159), (30, 99))
WARM = ((30, 99), (100, 199), (170, 239))
Shades = Sequence[Tuple[int, int]]


def draw_scene(split: str,
               seed: int,
               index: int,
               crossing: bool = False) -> Tuple[np.ndarray, np.ndarray]:
    """Draw one scene, the same for the same arguments.

    Args:
        split: 'train', 'val' or 'test': disjoint random streams.
        seed: Of the data set, non-negative.
        index: Of the image, non-negative.
        crossing: Whether there are pedestrians, who wait while cars drive. In
            'val' and 'test' images 2k and 2k + 1 then differ in the signal
            alone.

    Returns:
        Image (128, 192, 3), uint8, BGR, and label map (128, 192), uint8.
    """
    # numpy freezes the stream of RandomState (NEP 19), not that of Generator
    paired = crossing and split != 'train'
    rng = RandomState(
        [SPLITS.index(split), seed, index // 2 if paired else index])
    image = _draw_ground(rng)
    label = np.full((HEIGHT, WIDTH), BACKGROUND, np.uint8)
    # Two thirds of the signals to train on at a crossing are green. With half
    # of them, neither the kind of an object nor the signal alone would tell
    # anything of its label, no gradient would point to either, and when a head
    # finds both would be left to chance.
    green = bool(rng.randint(3 if crossing and not paired else 2))
    green ^= paired and index % 2 == 1
    mirror = bool(rng.randint(2))

    _draw_signal(rng, image, green)
    free = np.ones((HEIGHT, WIDTH), bool)
    for draw, moves in (_crossing if crossing else _cars)(rng, green):
        for _ in range(MOST_TRIES if crossing else 1):
            if _place(rng, image, label, free, SIGNAL + GAP, draw,
                      MOVING if moves else WAITING):
                break
    for _ in range(rng.randint(1, 4)):
        _place(rng, image, label, free, SIGNAL, _draw_tree, TREE)

    noisy = image + rng.normal(0, 8, image.shape)
    image = noisy.clip(0, 255).astype(np.uint8)
    if mirror:
        image, label = image[:, ::-1], label[:, ::-1]
    return np.ascontiguousarray(image), np.ascontiguousarray(label)


def _cars(rng: RandomState, green: bool) -> Iterator[Tuple[Callable, bool]]:
    """Yield how to draw each object that the signal is for; if it moves."""
    for _ in range(rng.randint(2, 5)):
        yield partial(_draw_car, shades=ANY), green


def _crossing(rng: RandomState,
              green: bool) -> Iterator[Tuple[Callable, bool]]:
    """The same of two cars and two pedestrians, in random order."""
    for i in rng.permutation(4):
        if i < 2:
            yield partial(_draw_car, shades=COLD), green
        else:
            yield _draw_pedestrian, not green


def _draw_ground(rng: RandomState) -> np.ndarray:
    """Asphalt: grey, with large, weak stains."""
    stains = rng.normal(0, 14, (4, 6)).astype(np.float32)
    stains = cv2.resize(stains, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    ground = rng.randint(95, 145) + stains
    return np.repeat(ground.astype(np.uint8)[..., None], 3, axis=2)


def _draw_signal(rng: RandomState, image: np.ndarray, green: bool) -> None:
    """A traffic signal at the left border, red on top, green below."""
    x, y = 2, rng.randint(2, HEIGHT - 48)
    cv2.rectangle(image, (x, y), (x + 22, y + 44), (20, 20, 20), -1)
    cv2.circle(image, (x + 11, y + 12), 9, UNLIT if green else RED, -1)
    cv2.circle(image, (x + 11, y + 33), 9, GREEN if green else UNLIT, -1)


def _place(rng: RandomState, image: np.ndarray, label: np.ndarray,
           free: np.ndarray, left: int, draw: Callable, value: int) -> bool:
    """Draw an object right of ``left``; return False if no ground is free."""
    mask, colours = draw(rng)  # [h, w], [h, w, 3]
    h, w = mask.shape
    for _ in range(20):
        y = rng.randint(0, HEIGHT - h + 1)
        x = rng.randint(left, WIDTH - w + 1)
        window = np.s_[y:y + h, x:x + w]
        if free[window].all():
            image[window][mask] = colours[mask]
            label[window][mask] = value
            free[window] = False
            return True
    return False


def _colour(rng: RandomState, shades: Shades) -> List[int]:
    return [rng.randint(low, high + 1) for low, high in shades]


def _draw_car(rng: RandomState,
              shades: Shades) -> Tuple[np.ndarray, np.ndarray]:
    """A car from above, facing any of four directions."""
    length, width, cut = rng.randint(38, 47), rng.randint(22, 27), 4
    colour = _colour(rng, shades)
    body = np.array([(0, cut), (cut, 0), (length - 1 - cut, 0),
                     (length - 1, cut), (length - 1, width - 1 - cut),
                     (length - 1 - cut, width - 1), (cut, width - 1),
                     (0, width - 1 - cut)])
    mask = np.zeros((width, length), np.uint8)
    cv2.fillPoly(mask, [body], 1)
    colours = np.zeros((width, length, 3), np.uint8)
    colours[:] = colour
    glass = (60, 45, 35)
    cv2.rectangle(colours, (length // 4, 3), (length // 4 + 6, width - 4),
                  glass, -1)
    cv2.rectangle(colours, (length * 3 // 4, 4),
                  (length * 3 // 4 + 3, width - 5), glass, -1)
    turns = rng.randint(4)
    return np.rot90(mask.astype(bool), turns), np.rot90(colours, turns)


def _draw_pedestrian(rng: RandomState) -> Tuple[np.ndarray, np.ndarray]:
    """Head and shoulders from above, facing any of four directions.

    As large as a car, so that all have the same share of the IoU.
    """
    length, width = rng.randint(45, 52), rng.randint(26, 31)
    colour = _colour(rng, WARM)
    mask = np.zeros((width, length), np.uint8)
    centre = length // 2, width // 2
    cv2.ellipse(mask, centre, (length // 2 - 1, width // 2 - 1), 0, 0, 360, 1,
                -1)
    colours = np.zeros((width, length, 3), np.uint8)
    colours[:] = colour
    cv2.circle(colours, centre, width // 3, (40, 50, 60), -1)
    turns = rng.randint(4)
    return np.rot90(mask.astype(bool), turns), np.rot90(colours, turns)


def _draw_tree(rng: RandomState) -> Tuple[np.ndarray, np.ndarray]:
    """A tree from above: a round crown with lighter tufts."""
    radius = rng.randint(13, 19)
    size = 2 * radius + 1
    mask = np.zeros((size, size), np.uint8)
    cv2.circle(mask, (radius, radius), radius, 1, -1)
    colours = np.zeros((size, size, 3), np.uint8)
    colours[:] = (35, 95, 45)
    for _ in range(12):
        x, y = rng.randint(4, size - 4, 2).tolist()
        cv2.circle(colours, (x, y), 3, (50, 140, 75), -1)
    return mask.astype(bool), colours
