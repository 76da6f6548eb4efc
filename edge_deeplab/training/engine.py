"""The training loop: schedule, averaged weights, evaluation, checkpoints and exact resume."""

from __future__ import annotations

import copy
import dataclasses
import datetime
import json
import math
import platform
import subprocess
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from edge_deeplab import imaging
from edge_deeplab.data import open_split
from edge_deeplab.errors import UserError, needs
from edge_deeplab.evaluation import as_record, evaluate, metric_name
from edge_deeplab.files import read_bytes, write_bytes, write_text
from edge_deeplab.models.checkpoint import read_safetensors, save_checkpoint
from edge_deeplab.models.deeplab import DeepLabV3Plus
from edge_deeplab.models.pretrained import initialise
from edge_deeplab.models.variants import variant
from edge_deeplab.runtimes.on_torch import TorchRuntime
from edge_deeplab.spec import InputContract, Provenance
from edge_deeplab.training.config import TrainConfig
from edge_deeplab.training.dataset import Samples, loader, mixed_seed
from edge_deeplab.training.losses import class_weights, segmentation_loss
from edge_deeplab.training.optimizer import learning_rate, make_optimizer, set_rate

STATE = "last.safetensors"
BEST = "best.safetensors"


class Trainer:
    """One run in one folder.

    Every step's randomness follows from the seed and the step's number, and the state file holds
    everything else, so a run that was killed and resumed ends with the same weights.
    """

    def __init__(self, config: TrainConfig, output: Path, *, resume: bool = False) -> None:
        self.config = config
        self.output = output
        if config.threads:
            torch.set_num_threads(config.threads)
        if config.batch < 2:
            raise UserError("--batch must be at least 2: image pooling's batch norm needs two pictures")
        self.device = torch.device(
            ("cuda" if torch.cuda.is_available() else "cpu") if config.device == "auto" else config.device
        )
        self.train_splits = [open_split(spec, "train") for spec in config.data]
        self.val_splits = [open_split(spec, "val") for spec in config.data]
        classes = self.train_splits[0].classes
        for split in [*self.train_splits, *self.val_splits]:
            if split.classes != classes:
                raise UserError(f"{split.name} has other classes than {self.train_splits[0].name}")
        self.samples = Samples(self.train_splits, config)
        per_epoch = len(self.samples) // config.batch
        if not per_epoch:
            raise UserError(
                f"{len(self.samples)} pictures do not fill one batch of {config.batch}; lower --batch"
            )
        self.per_epoch, self.total = per_epoch, per_epoch * config.epochs
        self.contract = InputContract(
            name=config.name,
            variant=config.variant,
            height=config.size[0],
            width=config.size[1],
            classes=classes,
            provenance=Provenance(
                data=tuple(f"{s.name} ({len(s)} pictures)" for s in self.train_splits),
                license=config.license,
                commit=git_commit(),
                date=datetime.date.today().isoformat(),
            ),
        )
        torch.manual_seed(config.seed)
        architecture = variant(config.variant).architecture
        if config.output_stride:
            architecture = dataclasses.replace(architecture, output_stride=config.output_stride)
        self.model = DeepLabV3Plus(architecture, self.contract.output_channels)
        self.contract = self.contract.replace(head_stride=self.model.head_stride)
        self.step, self.best = 0, -math.inf
        self.class_weights: Tensor | None = None
        state = output / STATE
        if resume and state.exists():
            self._load(state)
        elif resume and not output.exists():
            raise UserError(f"nothing to resume in {output}: it does not exist; start without --resume")
        else:
            if not resume and state.exists():
                raise UserError(
                    f"{output} holds a run already; continue it with --resume or choose another --output"
                )
            if config.init:
                print(initialise(self.model, config.init, self._first_images(32)))
            self._build()

    def _build(self) -> None:
        self.model.to(self.device).to(memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.model).eval().requires_grad_(False)
        self.optimizer = make_optimizer(self.model, self.config)

    def _first_images(self, count: int) -> Tensor:
        frames = (
            self.samples.splits[s].read(i)[0]
            for s, i in self.samples.places[:: max(1, len(self.samples) // count)][:count]
        )
        return torch.cat([torch.from_numpy(imaging.preprocess(frame, self.contract)) for frame in frames])

    # -- one run ---------------------------------------------------------------------------------

    def run(self) -> Path:
        """Train to the end; returns the best checkpoint's path."""
        self.output.mkdir(parents=True, exist_ok=True)
        write_text(self.output / "config.json", json.dumps(dataclasses.asdict(self.config), indent=2))
        write_text(self.output / "environment.json", json.dumps(environment(), indent=2))
        self._trim_log()
        config = self.config
        batches = loader(self.samples, config, self.step, self.total)
        self.class_weights = self._class_weights()
        bar = tqdm(total=self.total, initial=self.step, unit="step", desc=config.name, smoothing=0.02)
        with SummaryWriter(str(self.output / "tensorboard"), purge_step=self.step + 1) as board, bar:
            recent: list[float] = []
            for batch in batches:
                recent.append(self._train_step(batch))
                self.step += 1
                bar.update()
                if self.step % 20 == 0:
                    mean = sum(recent) / len(recent)
                    recent.clear()
                    bar.set_postfix(loss=f"{mean:.4f}", best=f"{self.best:.4f}")
                    board.add_scalar("train/loss", mean, self.step)
                    board.add_scalar("train/lr", self.optimizer.param_groups[-1]["lr"], self.step)
                    self._log({"step": self.step, "loss": mean})
                ended = self.step % self.per_epoch == 0
                if ended and (self.step // self.per_epoch % config.val_every == 0 or self.step == self.total):
                    self._validate(board)
                    self._save()
                elif self.step % config.checkpoint_every == 0:
                    self._save()
        return self.output / BEST

    def _train_step(self, batch: dict[str, Tensor]) -> float:
        config = self.config
        # Dropout is the only randomness left here.
        torch.manual_seed(mixed_seed(config.seed, 1, self.step))
        set_rate(self.optimizer, learning_rate(self.step, self.total, config))
        self.model.train()
        if config.norm == "frozen":
            for module in self.model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        image = self._scaled(batch["image"].to(self.device, non_blocking=True))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=config.precision == "bf16"):
            logits = self.model(image)
        label, band = batch["label"].to(self.device), batch["band"].to(self.device)
        loss = segmentation_loss(logits, label, band, config, self.class_weights)
        value = loss.item()
        if not math.isfinite(value):
            state = self.output / STATE
            cure = f"{state} holds the last good state: resume" if state.exists() else "start again"
            raise UserError(f"the loss is {value} at step {self.step}; {cure} with a lower --lr")
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self._average()
        return value

    def _scaled(self, image: Tensor) -> Tensor:
        """uint8 (N, 3, H, W) -> float, as :func:`edge_deeplab.imaging.pack` does for one frame."""
        mean, std = (
            torch.tensor(v, device=image.device).view(1, 3, 1, 1)
            for v in (self.contract.mean, self.contract.std)
        )
        return ((image - mean) / std).contiguous(memory_format=torch.channels_last)

    def _class_weights(self) -> Tensor | None:
        """Weights of the classes in the loss, from the labels of all training pictures."""
        rule = self.config.class_weights
        if rule == "none":
            return None
        classes = len(self.contract.classes)
        counts = np.zeros(256, np.int64)
        for index in tqdm(range(len(self.samples)), desc="counting labels", unit="picture", leave=False):
            counts += np.bincount(self.samples.read(index)[1].numpy().ravel(), minlength=256)
        return class_weights(counts[:classes].tolist(), rule).to(self.device)

    @torch.no_grad()
    def _average(self) -> None:
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
        mine, theirs = _floats(self.average), _floats(self.model)
        torch._foreach_lerp_(mine, theirs, 1 - decay)

    # -- evaluation --------------------------------------------------------------------------------

    def _validate(self, board: SummaryWriter) -> None:
        runtime = TorchRuntime(self.average, self.contract, device=str(self.device))
        metrics: dict[str, float] = {}
        for split in self.val_splits:
            scores = evaluate(lambda frame: runtime.segment(frame).labels, split, boundary=False)
            metrics[metric_name(split)] = scores.foreground_iou
            board.add_scalar(f"val/{split.name}", scores.foreground_iou, self.step)
            self._log({"step": self.step, **as_record(scores, split)})
        board.add_image("val/samples", self._samples(runtime), self.step, dataformats="HWC")
        mean = sum(metrics.values()) / len(metrics)
        tqdm.write(f"step {self.step}: " + ", ".join(f"{k} {v:.4f}" for k, v in metrics.items()))
        if mean > self.best:
            self.best = mean
            save_checkpoint(self.output / BEST, self.average, self.contract.replace(metrics=metrics))

    def _samples(self, runtime: TorchRuntime) -> Any:
        """Two pictures of every val split with their masks, side by side (RGB), also written as a PNG."""
        tiles = []
        for split in self.val_splits:
            for index in (0, len(split) // 2):
                frame, _ = split.read(index)
                shown = imaging.overlay(frame, runtime.segment(frame).labels, self.contract)
                tiles.append(cv2.resize(shown, (240, 320)))
        sheet: imaging.Frame = np.hstack(tiles).astype(np.uint8)
        imaging.write_image(self.output / "samples" / f"{self.step:06d}.jpg", sheet)
        return cv2.cvtColor(sheet, cv2.COLOR_BGR2RGB)

    # -- state -------------------------------------------------------------------------------------

    def _save(self) -> None:
        from safetensors.torch import save

        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.state_dict().items()}
        for index, values in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{k}": v for k, v in values.items()}
        header = {
            "step": str(self.step),
            "best": repr(self.best),
            "config": json.dumps(dataclasses.asdict(self.config)),
            "contract": self.contract.to_json(),
        }
        write_bytes(self.output / STATE, save({k: v.contiguous() for k, v in tensors.items()}, header))

    def _load(self, path: Path) -> None:
        tensors, header = read_safetensors(path)
        try:
            now = json.loads(json.dumps(dataclasses.asdict(self.config)))
            # A state written before a setting existed was trained as that setting's default does.
            then = json.loads(json.dumps(dataclasses.asdict(TrainConfig(data=()))))
            then |= json.loads(header["config"])
            changed = [k for k in now if now[k] != then.get(k) and k not in RESUMABLE]
            if changed:
                settings = ", ".join(f"{k} {then.get(k)!r}" for k in changed)
                raise UserError(
                    f"{path} was trained with other settings ({settings}); give the same ones to resume"
                )
            self.step, self.best = int(header["step"]), float(header["best"])
            self.contract = InputContract.from_json(header["contract"], source=str(path))
            self._build()
            self.model.load_state_dict(_under(tensors, "model."))
            self.average.load_state_dict(_under(tensors, "average."))
            states: dict[int, dict[str, Tensor]] = {}
            for name, value in _under(tensors, "optimizer.").items():
                index, _, key = name.partition(".")
                states.setdefault(int(index), {})[key] = value
            self.optimizer.load_state_dict(
                {"state": states, "param_groups": self.optimizer.state_dict()["param_groups"]}
            )
        except (KeyError, ValueError, RuntimeError) as error:
            raise UserError(f"{path} is no training state of this model: {error}") from error

    # -- log ---------------------------------------------------------------------------------------

    def _log(self, record: dict[str, Any]) -> None:
        with (self.output / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(record) + "\n")

    def _trim_log(self) -> None:
        """Drop lines of steps that were lost with a kill and will be done again."""
        path = self.output / "metrics.jsonl"
        if path.exists() and path.stat().st_size:
            lines = read_bytes(path).decode(errors="replace").splitlines()
            write_text(path, "".join(f"{line}\n" for line in lines if _step_of(line) <= self.step))


RESUMABLE = {"workers", "threads", "checkpoint_every", "val_every", "lr"}
"""Settings that may change on resume. Only `lr`, the cure for a run that diverged, touches the weights."""


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError):
        return math.inf  # a line cut in half by the kill


def _floats(module: nn.Module) -> list[Tensor]:
    return [v for v in module.state_dict().values() if v.is_floating_point()]


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def environment() -> dict[str, str]:
    """Versions that a run depends on."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "opencv": cv2.__version__,
        "numpy": np.__version__,
        "machine": platform.machine(),
        "commit": git_commit(),
    }


def git_commit() -> str:
    """Commit of the code that is running, ``+dirty`` if it has changes; empty outside a checkout."""
    here = Path(__file__).resolve().parent

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        commit = git("rev-parse", "HEAD")
        return commit + ("+dirty" if commit and git("status", "--porcelain", "-uno") else "")
    except OSError:
        return ""


def train(config: TrainConfig, output: Path, *, resume: bool = False) -> Path:
    """Train a model; see :class:`Trainer`."""
    with needs("train"):
        trainer = Trainer(config, output, resume=resume)
    return trainer.run()
