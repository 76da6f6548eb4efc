"""The training run: steps, averaged weights, validation, checkpoints and exact resume."""

from __future__ import annotations

import dataclasses
import datetime
import math
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from edge_deeplab import imaging
from edge_deeplab.data import Split, open_splits
from edge_deeplab.errors import UserError
from edge_deeplab.evaluation.shares import check_same_pictures
from edge_deeplab.models.checkpoint import save_checkpoint
from edge_deeplab.models.deeplab import DeepLabV3Plus
from edge_deeplab.models.pretrained import initialise
from edge_deeplab.models.variants import variant
from edge_deeplab.spec import ClassInfo, InputContract, Provenance
from edge_deeplab.training.config import TrainConfig
from edge_deeplab.training.dataset import Batches, Samples, loader, workers_watched
from edge_deeplab.training.distillation import Teacher, load_teacher
from edge_deeplab.training.distributed import World, find_device, join
from edge_deeplab.training.environment import git_commit
from edge_deeplab.training.losses import class_weights
from edge_deeplab.training.networks import assemble, floats, measure_ranges
from edge_deeplab.training.objective import Objective
from edge_deeplab.training.optimizer import learning_rate, make_optimizer, set_rate
from edge_deeplab.training.place import check_place
from edge_deeplab.training.run_folder import RunFolder
from edge_deeplab.training.state import Progress, State, save_state
from edge_deeplab.training.step import NotFinite, Step
from edge_deeplab.training.validation import validate

LOG_EVERY = 20
"""Steps that a logged loss is averaged over."""

FIRST_PICTURES = 32
"""Pictures that batch norm or ranges are measured on before the first step."""

RANGES_SETTLE = 2 / 3
"""Share of a quantisation-aware run after which activation ranges stay."""


def train(config: TrainConfig, output: Path, *, resume: bool = False, given: Collection[str] = ()) -> Path:
    """Train a model; under torchrun, together with the other processes.

    Args:
        config: All settings.
        output: Folder of the run.
        resume: Go on from the last state in ``output``.
        given: Names of settings that are refused where they have no say; others are then passed over.

    Returns:
        The best checkpoint's path.

    Raises:
        UserError: Settings, data or device cannot be used, or the loss is no number any more.
    """
    config.check()
    with join(config.device) as world, workers_watched():
        return Trainer(config, output, resume=resume, given=given, world=world).run()


class Trainer:
    """One run in one folder.

    Every step's randomness follows from the seed and the step's number, and the state file holds
    everything else, so a run that was killed and resumed ends with the same weights.
    """

    def __init__(
        self,
        config: TrainConfig,
        output: Path,
        *,
        resume: bool = False,
        given: Collection[str] = (),
        world: World | None = None,
    ) -> None:
        if config.threads:
            torch.set_num_threads(config.threads)
        self.config = config
        self.world = world or World(find_device(config.device))
        self.folder = RunFolder(output)
        check_place(output, resume=resume)
        self._check_world()
        self.train_splits = open_splits(config.data, "train")
        self.val_splits = open_splits(config.data, "val")
        classes = _same_classes([*self.train_splits, *self.val_splits])
        config.check_heard(given, binary=len(classes) == 2)
        self.samples = Samples(self.train_splits, config)
        self.per_epoch = len(self.samples) // config.batch
        if not self.per_epoch:
            raise UserError(
                f"{len(self.samples)} pictures do not fill one batch of {config.batch}; lower --batch"
            )
        self.total = self.per_epoch * config.epochs
        self.progress = Progress()
        state = self._stopped()
        self._check_machines(state)
        self._build(classes, state)

    def _stopped(self) -> State | None:
        """What a run that stopped has left; says where going on is not quite what it would have been."""
        if not self.folder.state.exists():
            return None
        config = self.config
        state = State(self.folder.state, config, [*self.train_splits, *self.val_splits])
        by_parts = config.norm == "batch" or config.ohem < 1
        if by_parts and state.parts != config.accumulate and self.world.leads:
            print(
                f"--accumulate was {state.parts}: batch norm and --ohem look at parts, so the result "
                "differs a little from that of a run that never stopped"
            )
        return state

    def _check_world(self) -> None:
        config, world = self.config, self.world
        parts = world.size * config.accumulate
        if config.batch % parts:
            raise UserError(
                f"--batch {config.batch} cannot be split evenly over {world.size} processes of "
                f"{config.accumulate} parts; take a multiple of {parts}"
            )
        if config.norm == "batch" and config.batch < 2 * parts:
            raise UserError("every part of a batch needs two pictures for batch norm; or use --norm frozen")
        if config.norm == "sync" and world.device.type != "cuda":
            raise UserError(
                "--norm sync needs CUDA; on a CPU use --norm frozen, or batch with a larger --batch"
            )

    def _check_machines(self, state: State | None) -> None:
        """Refuse what differs between machines: they would wait for each other, or learn two things."""
        check_same_pictures([*self.train_splits, *self.val_splits], self.world)
        steps = self.world.gather(state.progress.step if state else 0)
        if len(set(steps)) > 1:
            raise UserError(
                f"{self.folder.state} is not the same for all processes (they are at steps "
                f"{', '.join(map(str, steps))}); give an --output that all machines share"
            )

    # -- model -------------------------------------------------------------------------------------

    def _build(self, classes: tuple[ClassInfo, ...], state: State | None) -> None:
        """Networks, optimiser and step, new or as a state file holds them."""
        config, world = self.config, self.world
        architecture = variant(config.variant).architecture
        if config.output_stride:
            architecture = dataclasses.replace(architecture, output_stride=config.output_stride)
        self.contract = self._contract(classes)
        torch.manual_seed(config.seed)
        model = DeepLabV3Plus(architecture, self.contract.output_channels)
        self.contract = self.contract.replace(head_stride=model.head_stride)
        if state is None and config.init:
            words = initialise(model, config.init, self._first_pictures(), [info.name for info in classes])
            if world.leads:
                print(words)
        self.networks = assemble(model, config, world)
        self.optimizer = make_optimizer(model, config)
        self.step = Step(config, world, self.networks, self.optimizer, self.contract)
        if state is not None:
            self.progress, self.contract = state.progress, state.contract
            state.restore(self.networks.stateful, self.optimizer, self.step.scaler)
        elif config.qat:
            measure_ranges(self.networks, self._first_pictures())

    def _contract(self, classes: tuple[ClassInfo, ...]) -> InputContract:
        config = self.config
        return InputContract(
            name=config.name,
            variant=config.variant,
            height=config.size[0],
            width=config.size[1],
            resize=config.resize,
            classes=classes,
            provenance=Provenance(
                data=tuple(f"{s.name} ({len(s)} pictures)" for s in self.train_splits),
                license=config.license,
                commit=git_commit(),
                date=datetime.date.today().isoformat(),
            ),
        )

    def _first_pictures(self) -> Tensor:
        """Real pictures as inference would see them, float32 (N, 3, H, W)."""
        every = max(1, len(self.samples) // FIRST_PICTURES)
        frames = (self.samples.splits[s].read(i)[0] for s, i in self.samples.places[::every][:FIRST_PICTURES])
        return torch.cat([torch.from_numpy(imaging.preprocess(frame, self.contract)) for frame in frames])

    # -- one run -----------------------------------------------------------------------------------

    def run(self) -> Path:
        """Train to the end; returns the best checkpoint's path."""
        config, progress = self.config, self.progress
        if self.world.leads:
            self.folder.open(config, progress.step, self.world.size)
        self.step.objective = Objective(config, self._class_weights(), self._teacher())
        batches = Batches(len(self.samples), config, progress.step, self.total, self.world)
        bar: tqdm[Any] = tqdm(
            total=self.total,
            initial=progress.step,
            unit="step",
            desc=config.name,
            smoothing=0.02,
            disable=not self.world.leads,
        )
        recent: list[float] = []
        try:
            for batch in loader(self.samples, config, batches, pin=self.world.device.type == "cuda"):
                recent.append(self._train_step(batch))
                progress.step += 1
                bar.update()
                if progress.step % LOG_EVERY == 0:
                    self._report(recent, bar)
                    recent.clear()
                ended = progress.step % self.per_epoch == 0
                epoch = progress.step // self.per_epoch
                if ended and (epoch % config.val_every == 0 or progress.step == self.total):
                    self._validate()
                    self._save()
                elif progress.step % config.checkpoint_every == 0:
                    self._save()
        finally:
            bar.close()
            self.folder.close()
        return self.folder.best

    def _train_step(self, batch: dict[str, Tensor]) -> float:
        config, step = self.config, self.progress.step
        set_rate(self.optimizer, learning_rate(step, self.total, config))
        if self.networks.quantiser is not None:
            self.networks.quantiser.observing = step < RANGES_SETTLE * self.total
        try:
            loss = self.step(batch, step)
        except NotFinite as error:
            raise UserError(self._diverged(str(error))) from error
        self.networks.follow(min(config.ema, (1 + step) / (10 + step)))
        return loss

    def _diverged(self, what: str) -> str:
        """What is no number, in which batch it was, and what to do."""
        step = self.progress.step
        keys = next(iter(Batches(len(self.samples), self.config, step, step + 1)))
        names = [str(self.samples.pair(index).image) for _, index in keys]
        if self.world.leads:
            self.folder.log({"step": step, "not_finite": what, "pictures": names})
        self.world.gather(step)  # nobody ends, and ends the others, before the first has written
        shown = ", ".join(Path(name).name for name in names[:4]) + (" …" if len(names) > 4 else "")
        state = self.folder.state
        cure = f"{state} holds the last good state: resume" if state.exists() else "start again"
        return (
            f"{what} at step {step} (epoch {step // self.per_epoch}, pictures {shown}; all in "
            f"metrics.jsonl); {cure} with a lower --lr"
        )

    def _teacher(self) -> Teacher | None:
        if not self.config.teacher:
            return None
        teacher = load_teacher(self.config.teacher, self.contract).to(self.world.device)
        if self.config.compile:
            teacher.compile()
        return teacher

    def _class_weights(self) -> Tensor | None:
        """Weights of the classes in the loss, from the labels of all training pictures."""
        rule = self.config.class_weights
        if rule == "none":
            return None
        classes = len(self.contract.classes)
        counts, near = np.zeros((2, classes), np.int64)
        mine = range(self.world.rank, len(self.samples), self.world.size)
        hidden = not self.world.leads
        for index in tqdm(mine, desc="counting labels", unit="picture", leave=False, disable=hidden):
            own = np.bincount(self.samples.read(index)[1].numpy().ravel(), minlength=classes)[:classes]
            counts += own
            near[own > 0] += own.sum()
        counts, near = np.sum(self.world.gather((counts, near)), axis=0)
        return class_weights(counts.tolist(), near.tolist(), rule).to(self.world.device)

    # -- what is written ---------------------------------------------------------------------------

    def _report(self, recent: list[float], bar: tqdm[Any]) -> None:
        if self.world.leads:
            mean, rate = sum(recent) / len(recent), self.optimizer.param_groups[-1]["lr"]
            best = f"{self.progress.best:.4f}" if math.isfinite(self.progress.best) else "-"
            bar.set_postfix(loss=f"{mean:.4f}", best=best)
            record = {"step": self.progress.step, "loss": mean, "lr": rate}
            self.folder.log(record, scalars={"train/loss": mean, "train/lr": rate})

    def _validate(self) -> None:
        # Batch norm's statistics and the ranges of activations differ between processes.
        self.world.share(floats(self.networks.average))
        if self.networks.quantiser is not None:
            self.world.share(floats(self.networks.quantiser.ranges))
        found = validate(self.networks.scored, self.contract, self.val_splits, self.world)
        if not self.world.leads or found.sheet is None:
            return
        step, folder = self.progress.step, self.folder
        for record in found.records:
            value = record[record["chosen_by"]]
            scalars = {} if value is None else {f"val/{record['data']}": value}
            folder.log({"step": step, **record}, scalars=scalars)
        folder.picture(step, found.sheet)
        folder.draw()
        words = ", ".join(f"{name} {value:.4f}" for name, value in found.metrics.items())
        tqdm.write(f"step {step}: {words or 'nothing to score: no val label counts'}")
        # Until there is a figure, the last weights are the best.
        unscored = math.isnan(found.mean) and self.progress.best == -math.inf
        if found.mean > self.progress.best or unscored or not folder.best.exists():
            self.progress.best = found.mean if math.isfinite(found.mean) else -math.inf
            save_checkpoint(folder.best, self.networks.average, self.contract.replace(metrics=found.metrics))

    def _save(self) -> None:
        if self.world.leads:
            save_state(
                self.folder.state,
                self.progress,
                self.config,
                self.contract,
                [*self.train_splits, *self.val_splits],
                self.networks.stateful,
                self.optimizer,
                self.step.scaler,
            )


def _same_classes(splits: list[Split]) -> tuple[ClassInfo, ...]:
    """Of all splits: the same names in the same order. Colours may differ, the first one's are kept."""
    ours = [info.name for info in splits[0].classes]
    for split in splits:
        theirs = [info.name for info in split.classes]
        if theirs != ours:
            what = "in another order" if sorted(theirs) == sorted(ours) else _difference(theirs, ours)
            raise UserError(f"{split.name} has other classes than {splits[0].name}: {what}")
    return splits[0].classes


def _difference(theirs: list[str], ours: list[str]) -> str:
    if len(theirs) != len(ours):
        return f"{len(theirs)}, not {len(ours)}"
    return next(
        f"id {k} is {a}, not {b}" for k, (a, b) in enumerate(zip(theirs, ours, strict=True)) if a != b
    )
