"""Learning from a larger model: its class probabilities, or where it sees each class."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edge_deeplab.data.kind_voc import CLASSES
from edge_deeplab.errors import UserError, needs
from edge_deeplab.files import read_bytes
from edge_deeplab.models.checkpoint import load_checkpoint
from edge_deeplab.models.layers import bilinear
from edge_deeplab.spec import ClassInfo, InputContract
from edge_deeplab.zoo import find

TORCHVISION = "torchvision:"

VOC = tuple(info.name for info in CLASSES)
"""Classes of torchvision's segmentation models, in their order."""


class Teacher(nn.Module):
    """A frozen model that sees the student's pictures: (N, 3, H, W) -> logits (N, K, h, w) for its classes.

    Args:
        model: Takes pictures scaled by its own ``mean`` and ``std``.
        mean, std: Of its input, in pixel values 0..255.
        contract: The student's; pictures come scaled as it says.
        picks: For every class of the student, the teacher's class id; empty: the same classes.
    """

    def __init__(
        self,
        model: nn.Module,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        contract: InputContract,
        picks: tuple[int, ...] = (),
    ) -> None:
        super().__init__()
        self.model = model.eval().requires_grad_(False)
        self.picks = picks
        theirs, ours = (torch.tensor(std), torch.tensor(contract.std))
        shift = (torch.tensor(contract.mean) - torch.tensor(mean)) / theirs
        self.register_buffer("factor", (ours / theirs).view(1, 3, 1, 1))
        self.register_buffer("shift", shift.view(1, 3, 1, 1))

    @torch.no_grad()
    def forward(self, image: Tensor) -> Tensor:
        """Logits for the student's classes; one channel, the person's log-odds, for a binary student."""
        answer = self.model(image * self.get_buffer("factor") + self.get_buffer("shift"))
        logits: Tensor = (answer["out"] if isinstance(answer, dict) else answer).float()
        if not self.picks:
            return logits
        if len(self.picks) == 2:
            person = logits[:, self.picks[1]]
            others = [k for k in range(logits.shape[1]) if k != self.picks[1]]
            return (person - logits[:, others].logsumexp(1)).unsqueeze(1)
        return logits[:, list(self.picks)]


def load_teacher(source: str, contract: InputContract) -> Teacher:
    """Load the model that ``--teacher`` names, for a student with ``contract``.

    Raises:
        UserError: Not found, or with other classes than the student's.
    """
    if source.startswith(TORCHVISION):
        return _from_torchvision(source.removeprefix(TORCHVISION), contract)
    path = find(source, prefer=(".safetensors",))
    if path.suffix != ".safetensors":
        raise UserError(f"--teacher {source}: give a checkpoint (.safetensors) or torchvision:NAME")
    model, its = load_checkpoint(path)
    if [info.name for info in its.classes] != [info.name for info in contract.classes]:
        raise UserError(f"--teacher {source} has other classes ({_names(its.classes)}) than the data")
    return Teacher(model, its.mean, its.std, contract)


def _from_torchvision(spec: str, contract: InputContract) -> Teacher:
    with needs("train"):
        from torchvision.models import list_models
    name, _, path = spec.partition("=")
    known = [each for each in list_models() if each.startswith(("deeplabv3", "fcn", "lraspp"))]
    if name not in known:
        raise UserError(f"--teacher torchvision:{name}: there is no such model; there are {', '.join(known)}")
    wanted = [info.name.lower() for info in contract.classes]
    if not set(wanted) <= set(VOC):
        raise UserError(
            f"--teacher torchvision:{name} knows VOC's 21 classes, not {_names(contract.classes)}; give a "
            "checkpoint trained on these"
        )
    model = _read_torchvision(name, path) if path else _download_torchvision(name)
    mean, std = (255 * 0.485, 255 * 0.456, 255 * 0.406), (255 * 0.229, 255 * 0.224, 255 * 0.225)
    return Teacher(model, mean, std, contract, tuple(VOC.index(word) for word in wanted))


def _read_torchvision(name: str, path: str) -> nn.Module:
    """A model with weights from a file; those of the auxiliary classifier are not needed."""
    from torchvision.models import get_model

    model: nn.Module = get_model(
        name, weights=None, weights_backbone=None, num_classes=len(VOC), aux_loss=False
    )
    read_bytes(path)
    try:
        state = torch.load(Path(path), map_location="cpu", weights_only=True)
        model.load_state_dict({k: v for k, v in state.items() if not k.startswith("aux_classifier.")})
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path} does not hold weights of {name}: {reason}") from error
    return model


def _download_torchvision(name: str) -> nn.Module:
    from torchvision.models import get_model

    try:
        model: nn.Module = get_model(name, weights="DEFAULT")
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"cannot download {name}: {error}; fetch it elsewhere and give torchvision:{name}=FILE.pth"
        ) from error
    return model


def _names(classes: tuple[ClassInfo, ...]) -> str:
    return ", ".join(info.name for info in classes[:6]) + (" …" if len(classes) > 6 else "")


def logits_kl(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """KL divergence of the class probabilities, averaged over pixels, times T^2 (Hinton et al. 2015).

    Args:
        student: (N, K, h, w); K = 1 is a binary model's log-odds.
        teacher: (N, K, h', w'); resized to the student's size.
        temperature: T, which softens both.
    """
    student, teacher = _matched(student, teacher)
    ours = F.log_softmax(student / temperature, 1)
    theirs = F.log_softmax(teacher / temperature, 1)
    each = (theirs.exp() * (theirs - ours)).sum(1)
    return temperature**2 * each.mean()


def channel_wise(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """KL divergence of each class's spatial distribution, times T^2 (Shu et al., ICCV 2021, equation 4).

    Arguments as for :func:`logits_kl`.
    """
    student, teacher = _matched(student, teacher)
    ours = F.log_softmax(student.flatten(2) / temperature, 2)
    theirs = F.log_softmax(teacher.flatten(2) / temperature, 2)
    each = (theirs.exp() * (theirs - ours)).sum(2)
    return temperature**2 * each.mean()


def _matched(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Both in float32 at the student's size; log-odds z become the two-class logits (-z/2, z/2)."""
    student = student.float()
    teacher = bilinear(teacher.float(), (student.shape[2], student.shape[3]))
    if student.shape[1] > 1:
        return student, teacher
    return torch.cat([-student / 2, student / 2], 1), torch.cat([-teacher / 2, teacher / 2], 1)
