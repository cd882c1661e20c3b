"""Are the maps of ``explain`` faithful? The measurements of docs/explain.md.

Where the answer is known: ``signal`` asks models of ContextShapes about the
cars of an image, of which only the signal tells whether they wait, and
compares maps by how much of them is on the signal. Where it is not: ``delete``
takes positions out of the kernels, and measures how the margin falls. ``cost``
measures time, memory and the size of the page.
"""
import argparse
from itertools import islice
from typing import Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from mmengine.runner import Runner
from mmseg.apis import init_model
from mmseg.evaluation import IoUMetric
from mmseg.models import BaseSegmentor
from mmseg.structures import SegDataSample
from torch import Tensor

from cac_mmseg.attribution.pairs import attribute_pairs
from cac_mmseg.attribution.paths import KernelPath, record
from cac_mmseg.attribution.shares import attribute_context
from cac_mmseg.commands.explain.regions import SMALLEST, largest_region
from cac_mmseg.datasets.scene import MOVING, SIGNAL, WAITING, draw_scene
from cac_mmseg.drawing.explorer import explorer
from cac_mmseg.drawing.reader import Reader
from cac_mmseg.errors import UserError
from cac_mmseg.stack.checkpoint import load_model
from cac_mmseg.stack.config import dataset_without_data
from cac_mmseg.stack.timing import seconds

CELL = 8  # pixels of a position of the feature map
PARTS = (0.01, 0.05, 0.2, 0.5)  # of the positions, that are deleted

# ---- signal


def margin_of(logits: Tensor, region: Tensor, classes: Tuple[int,
                                                             int]) -> Tensor:
    """Return the margin in a region of each image, (B,)."""
    logits = F.interpolate(logits, size=region.shape, mode='bilinear')
    means = logits[:, :, region].mean(2)
    return means[:, classes[0]] - means[:, classes[1]]


def gradients(model: BaseSegmentor, inputs: Tensor, region: Tensor,
              classes: Tuple[int, int]) -> Dict[str, Tensor]:
    """Return the maps of Grad-CAM and of gradient x input, (h, w)."""
    inputs = inputs.clone().requires_grad_()
    features = model.extract_feat(inputs)
    # the map that the head reads
    last = features[model.decode_head.in_index]
    value = margin_of(model.decode_head(features), region, classes)
    of_last, of_input = torch.autograd.grad(value.sum(), [last, inputs])
    weights = of_last.mean((2, 3), keepdim=True)
    cam = (weights * last).sum(1)[0].relu()
    product = (of_input * inputs).sum(1).abs()
    return {
        'Grad-CAM': cam.detach(),
        'gradient x input': F.avg_pool2d(product, CELL)[0].detach()
    }


@torch.no_grad()
def occlusion(model: BaseSegmentor, inputs: Tensor, region: Tensor,
              classes: Tuple[int, int]) -> Tensor:
    """Return how the margin falls without a square of 2 x 2 cells, (h, w)."""
    side = 2 * CELL
    h, w = (size // side for size in inputs.shape[2:])
    occluded = inputs.repeat(h * w, 1, 1, 1)
    for i, image in enumerate(occluded):
        y, x = (side * place for place in divmod(i, w))
        image[:, y:y + side, x:x + side] = 0  # the mean colour
    before, after = (
        margin_of(model(images, mode='tensor'), region, classes)
        for images in (inputs, occluded))
    falls = (before - after).view(h, w)
    return falls.repeat_interleave(2, 0).repeat_interleave(2, 1) / 4


def signal_cells(image: np.ndarray) -> Tensor:
    """Return which cells hold a part of the signal's box, (h, w), bool."""
    dark = (image < 60).all(2)  # at a border, only the box is
    sides = [np.s_[:, :SIGNAL], np.s_[:, -SIGNAL:]]
    side = max(sides, key=lambda part: dark[part].sum())
    rows = np.flatnonzero(dark[side].sum(1) > 4)
    box = np.zeros(dark.shape, bool)
    box[rows.min():rows.max() + 1][side] = True
    return F.max_pool2d(torch.from_numpy(box)[None].float(), CELL)[0] > 0


def ask_about_cars(model: BaseSegmentor, reader: Reader, index: int,
                   rng: torch.Generator) -> Dict[str, Tuple[float, bool]]:
    """Return each map's share on the signal, and whether its peak is there.

    Empty for an image without cars.
    """
    image, label = draw_scene('val', 0, index)
    found = np.unique(label[np.isin(label, (WAITING, MOVING))])
    if not len(found):
        return {}
    path = f'contextshapes://image/val/0/{index:06d}.png'
    data = reader.batch(reader.read(path))
    region = torch.from_numpy(label == found[0])
    first = int(found[0])
    classes = (first, WAITING + MOVING - first)
    inputs = model.data_preprocessor(data, False)['inputs']
    shares = attribute_context(record(model, data), region, classes)
    maps = {
        'shares':
        shares.total,
        **gradients(model, inputs, region, classes),
        'occlusion':
        occlusion(model, inputs, region, classes),
        'random':
        torch.rand(shares.total.shape, generator=rng),
    }
    at = signal_cells(image)
    masses = {name: values.abs() for name, values in maps.items()}
    return {
        name: ((mass[at].sum() / mass.sum().clamp_min(1e-12)).item(),
               bool(at.flatten()[mass.argmax()]))
        for name, mass in masses.items()
    }


def signal(arguments: argparse.Namespace) -> None:
    """Print the table of the methods, over images and trained seeds."""
    scores: Dict[str, List[List[Tuple[float, bool]]]] = {}
    for checkpoint in arguments.checkpoints:
        model = load_model(arguments.config, checkpoint)
        reader = Reader(dataset_without_data(model.cfg))
        rng = torch.Generator().manual_seed(0)
        for name in scores:
            scores[name].append([])
        for index in range(arguments.images):
            for name, score in ask_about_cars(model, reader, index,
                                              rng).items():
                scores.setdefault(name, [[]])[-1].append(score)
    print('| map | of its mass on the signal, % | peak on the signal, % |\n'
          '| --- | ---: | ---: |')
    for name, seeds in scores.items():
        # of each seed, over its images
        means = 100 * np.array([np.mean(seed, 0) for seed in seeds])
        cells = ' | '.join(f'{mean:.1f} ({low:.1f} to {high:.1f})'
                           for mean, low, high in zip(
                               means.mean(0), means.min(0), means.max(0)))
        print(f'| {name} | {cells} |')
    print(f'\n{len(scores["shares"][0])} images with cars; the mean over '
          f'{len(arguments.checkpoints)} seeds, and the lowest and highest')


# ---- delete


class Case(NamedTuple):
    """An image whose kernels lack a part of the positions.

    ``fall`` is that of the margin, ``deleted`` what the map says it should be
    to first order, both in logits; ``areas`` are the intersections and unions
    with the truth, (2, classes), in pixels.
    """
    order: str
    part: float
    fall: float
    deleted: float
    areas: Tensor


def orders(shares: Tensor, rng: np.random.Generator) -> Dict[str, np.ndarray]:
    """Return in which orders positions are deleted."""
    most = shares.flatten().argsort(descending=True).numpy()
    return {
        'largest shares': most,
        'random': rng.permutation(len(most)),
        'smallest shares': most[::-1].copy()
    }


def draw_region(labels: np.ndarray,
                rng: np.random.Generator) -> Tuple[Tensor, int]:
    """Draw a predicted class, and return its largest region, (H, W), bool."""
    found = {int(i): largest_region(labels, i) for i in np.unique(labels)}
    large = [i for i, region in found.items() if region.mean() >= SMALLEST]
    index = int(rng.choice(large))
    return torch.from_numpy(found[index]), index


def areas_of(output: SegDataSample, classes: int) -> Tensor:
    """Return intersections and unions with the truth, (2, classes)."""
    found = IoUMetric.intersect_and_union(output.pred_sem_seg.data[0],
                                          output.gt_sem_seg.data[0], classes,
                                          255)
    return torch.stack(found[:2]).double()


def delete_positions(model: BaseSegmentor, data: dict,
                     rng: np.random.Generator) -> Iterator[Case]:
    """Yield the image as it is, and with each part deleted in each order."""

    def predict() -> Tuple[SegDataSample, Tensor]:
        with torch.no_grad():
            output, = model.test_step(data)
        return output, areas_of(output, output.seg_logits.data.shape[0])

    def margin(output: SegDataSample) -> float:
        means = output.seg_logits.data[:, region].mean(1)
        return (means[shares.classes[0]] - means[shares.classes[1]]).item()

    whole, areas = predict()
    region, index = draw_region(whole.pred_sem_seg.data[0].numpy(), rng)
    # the model may read the image at another size
    read = F.interpolate(
        region[None, None].float(), size=data['inputs'][0].shape[1:])
    recording = record(model, data)
    shares = attribute_context(recording, read[0, 0] > 0, (index, None))
    yield Case('none', 0., 0., 0., areas)
    path, = (path for path in recording.paths if isinstance(path, KernelPath))
    with torch.no_grad():
        terms = torch.cat([*path.terms()])  # [n, g * c * t]
    for order, positions in orders(shares.kernels, rng).items():
        for part in PARTS:
            gone = positions[:max(1, round(part * len(positions)))]
            with path.using(path.end - terms[gone].sum(0).view_as(path.end)):
                output, areas = predict()
            yield Case(order, part,
                       margin(whole) - margin(output),
                       shares.kernels.flatten()[gone].sum().item(), areas)


def delete(arguments: argparse.Namespace) -> None:
    """Print how margins and mIoU fall as positions are deleted."""
    model = load_model(arguments.config, arguments.checkpoint)
    model.cfg.val_dataloader.batch_size = 1
    loader = Runner.build_dataloader(model.cfg.val_dataloader)
    rng = np.random.default_rng(0)
    cases: Dict[Tuple[str, float], List[Case]] = {}
    for data in islice(loader, arguments.images):
        for case in delete_positions(model, data, rng):
            cases.setdefault((case.order, case.part), []).append(case)
    print('| order | deleted | fall of the margin | by the map | mIoU |\n'
          '| --- | ---: | ---: | ---: | ---: |')
    for (order, part), found in cases.items():
        falls, by_map = np.array([(c.fall, c.deleted) for c in found]).T
        error = 1.96 * falls.std() / len(falls)**0.5
        intersect, union = sum(case.areas for case in found)
        print(f'| {order} | {part:.0%} | {falls.mean():+.3f} ± {error:.3f} | '
              f'{by_map.mean():+.3f} | '
              f'{100 * (intersect / union).nanmean():.1f} |')
    print(f'\n{len(found)} images; ± is 1.96 standard errors')
    if arguments.plot:
        plot(cases, arguments.plot)


def plot(cases: Dict[Tuple[str, float], List[Case]], path: str) -> None:
    """Draw the fall of the margin over the part of the positions."""
    figure = Figure(figsize=(6, 3.6), layout='constrained')
    ax = figure.subplots()
    for order in ('largest shares', 'random', 'smallest shares'):
        falls = [[case.fall for case in cases[order, part]] for part in PARTS]
        ax.errorbar(
            100 * np.array(PARTS),
            np.mean(falls, 1),
            1.96 * np.std(falls, 1) / len(falls[0])**0.5,
            marker='o',
            capsize=3,
            label=order)
    ax.axhline(0, color='grey', linewidth=0.8)
    ax.set(
        xlabel='positions taken out of the kernels, %',
        ylabel='fall of the margin, logits')
    ax.legend(frameon=False)
    figure.savefig(path, dpi=100)


# ---- cost


def cost(arguments: argparse.Namespace) -> None:
    """Print what an image costs, by a model without trained weights."""
    import resource  # not on Windows
    model = init_model(arguments.config, device='cpu')
    # at the start all margins are near 0
    torch.nn.init.normal_(model.decode_head.conv_seg.weight)
    image = np.random.default_rng(0).integers(0, 256, (*arguments.size, 3),
                                              np.uint8)
    data = dict(
        inputs=[torch.from_numpy(image).permute(2, 0, 1)],
        data_samples=[SegDataSample()])
    region = torch.zeros(image.shape[:2], dtype=torch.bool)
    region[:32, :32] = True
    classes = [str(i) for i in range(model.decode_head.num_classes)]
    meta = dict(classes=classes, palette=[[0, 0, 0]] * len(classes))
    found = {}

    def page() -> None:
        found['pairs'] = attribute_pairs(record(model, data))
        found['page'] = explorer('', image, image, found['pairs'], meta)

    work = dict(
        forward=lambda: model(
            model.data_preprocessor(data, False)['inputs'], mode='tensor'),
        region=lambda: attribute_context(record(model, data), region),
        page=page)
    print('| | s | peak of the process, MiB |\n| --- | ---: | ---: |')
    for name, call in work.items():
        with torch.set_grad_enabled(name == 'region'):
            times = seconds({name: call}, 3)[name]
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
        print(f'| {name} | {np.median(times):.2f} | {peak:.0f} |')
    h, w = (round(1 / part) for part in found['pairs'].cell)
    print(f'\n{found["pairs"].margin.numel()} places in steps of 1/{h} and '
          f'1/{w}, {len(found["page"]) / 1e6:.1f} MB; '
          f'{torch.get_num_threads()} threads')


def main(arguments: Optional[Sequence[str]] = None) -> None:
    """Parse the arguments and run the measurement."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser('signal', help=signal.__doc__)
    command.set_defaults(run=signal)
    command.add_argument('config')
    command.add_argument('checkpoints', nargs='+', help='of a seed each')
    command.add_argument('--images', type=int, default=500)
    command = commands.add_parser('delete', help=delete.__doc__)
    command.set_defaults(run=delete)
    command.add_argument('config')
    command.add_argument('checkpoint')
    command.add_argument('--images', type=int, default=1000, help='at most')
    command.add_argument('--plot', metavar='FILE', help='gets a picture')
    command = commands.add_parser('cost', help=cost.__doc__)
    command.set_defaults(run=cost)
    command.add_argument('config')
    command.add_argument('--size', type=int, nargs=2, default=(360, 480))
    parsed = parser.parse_args(arguments)
    try:
        parsed.run(parsed)
    except UserError as error:
        parser.error(str(error))


if __name__ == '__main__':
    main()
