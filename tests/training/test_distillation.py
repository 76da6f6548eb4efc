"""Teachers of every kind, and the two losses against their definitions."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from edge_deeplab.data.kind_voc import CLASSES
from edge_deeplab.errors import UserError
from edge_deeplab.models.checkpoint import load_checkpoint
from edge_deeplab.spec import PERSON_CLASSES, InputContract
from edge_deeplab.training.config import TrainConfig
from edge_deeplab.training.distillation import Teacher, channel_wise, load_teacher, logits_kl
from edge_deeplab.training.engine import train
from edge_deeplab.training.place import BEST
from tests.training.support import log_of, state_of

Loss = Callable[[Tensor, Tensor, float], Tensor]

SMALL = "deeplabv3_mobilenet_v3_large"
"""The lightest of torchvision's segmentation models."""


def logits(classes: int, seed: int, size: tuple[int, int] = (6, 5)) -> Tensor:
    return torch.randn(2, classes, *size, generator=torch.Generator().manual_seed(seed))


# -- losses ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [1, 4])
@pytest.mark.parametrize("loss", [logits_kl, channel_wise])
def test_a_perfect_student_costs_nothing(loss: Loss, classes: int) -> None:
    same = logits(classes, 0)
    assert float(loss(same, same, 4.0)) == pytest.approx(0, abs=1e-6)
    others = [float(loss(logits(classes, seed), same, 4.0)) for seed in range(1, 6)]
    assert min(others) > 1e-3


def test_kl_by_its_definition() -> None:
    student, teacher = logits(3, 1).double(), logits(3, 2).double()
    p, q = (torch.softmax(x / 2, 1) for x in (teacher, student))
    wanted = 4 * (p * (p / q).log()).sum(1).mean()
    assert float(logits_kl(student, teacher, 2.0)) == pytest.approx(float(wanted), rel=1e-5)


def test_kl_of_a_binary_student_is_that_of_bernoulli() -> None:
    student, teacher = logits(1, 1), logits(1, 2)
    p, q = (torch.sigmoid(x.double() / 3) for x in (teacher, student))
    wanted = 9 * (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).mean()
    assert float(logits_kl(student, teacher, 3.0)) == pytest.approx(float(wanted), rel=1e-5)


def test_channel_wise_by_its_definition() -> None:
    student, teacher = logits(3, 1).double(), logits(3, 2).double()
    p, q = (torch.softmax(x.flatten(2) / 4, 2) for x in (teacher, student))
    wanted = 16 * (p * (p / q).log()).sum(2).mean()
    assert float(channel_wise(student, teacher, 4.0)) == pytest.approx(float(wanted), rel=1e-4)
    # A constant added to a whole map moves no place.
    shifted = student + torch.tensor([5.0, -3.0, 1.0]).view(1, 3, 1, 1)
    torch.testing.assert_close(channel_wise(shifted, teacher, 4.0), channel_wise(student, teacher, 4.0))


@pytest.mark.parametrize("loss", [logits_kl, channel_wise])
def test_a_coarser_teacher_is_resized_and_only_the_student_learns(loss: Loss) -> None:
    student = logits(3, 1, (12, 10)).requires_grad_()
    loss(student, logits(3, 2, (3, 4)), 4.0).backward()
    assert student.grad is not None
    assert student.grad.abs().sum() > 0


# -- teachers ----------------------------------------------------------------------------------------


@pytest.fixture
def contract() -> InputContract:
    return InputContract("student", "nano", 64, 64, PERSON_CLASSES)


class Echo(nn.Module):
    """Gives back what it sees."""

    def forward(self, x: Tensor) -> Tensor:
        return x


def test_a_teacher_sees_pictures_in_its_own_scaling(contract: InputContract) -> None:
    mean, std = (100.0, 110.0, 120.0), (50.0, 60.0, 70.0)
    pixels = torch.randint(256, (2, 3, 4, 5)).float()
    student_sees = (pixels - 128) / 128
    seen = Teacher(Echo(), mean, std, contract)(student_sees)
    wanted = (pixels - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(1, 3, 1, 1)
    torch.testing.assert_close(seen, wanted)


def test_the_person_of_21_classes_becomes_log_odds(contract: InputContract) -> None:
    answer = logits(21, 3)

    class Fixed(nn.Module):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"out": answer}

    names = [info.name for info in CLASSES]
    teacher = Teacher(Fixed(), (128,) * 3, (128,) * 3, contract, (0, names.index("person")))
    odds = teacher(torch.zeros(2, 3, 6, 5))
    person = torch.softmax(answer, 1)[:, 15]
    torch.testing.assert_close(torch.sigmoid(odds[:, 0]), person)


def test_a_run_is_a_teacher(finished: Path, contract: InputContract) -> None:
    teacher = load_teacher(str(finished / BEST), contract)
    image = torch.randn(2, 3, 64, 64)
    model, _ = load_checkpoint(finished / BEST)
    torch.testing.assert_close(teacher(image), model(image))
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert not teacher.train(False).training


@pytest.fixture(scope="module")
def torchvision_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from torchvision.models import get_model

    torch.manual_seed(0)
    model = get_model(SMALL, weights=None, weights_backbone=None, num_classes=21, aux_loss=True)
    path = tmp_path_factory.mktemp("weights") / "small.pth"
    torch.save(model.state_dict(), path)
    return path


def test_a_torchvision_teacher_from_a_file(torchvision_file: Path, contract: InputContract) -> None:
    """As its published files are: with an auxiliary classifier that distillation does not need."""
    teacher = load_teacher(f"torchvision:{SMALL}={torchvision_file}", contract)
    odds = teacher(torch.randn(1, 3, 64, 64))
    assert odds.shape == (1, 1, 64, 64)
    assert odds.isfinite().all()
    voc = contract.replace(classes=CLASSES)
    assert (
        load_teacher(f"torchvision:{SMALL}={torchvision_file}", voc)(torch.randn(1, 3, 64, 64)).shape[1] == 21
    )


def test_teachers_that_cannot_teach(
    tmp_path: Path,
    finished: Path,
    torchvision_file: Path,
    contract: InputContract,
    four_classes: InputContract,
) -> None:
    (tmp_path / "x.onnx").write_bytes(b"x")
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
    (tmp_path / "text.pth").write_text("no weights")
    for source, student, words in [
        (str(finished / BEST), four_classes, "has other classes"),
        (f"torchvision:{SMALL}={torchvision_file}", four_classes, "knows VOC's 21 classes"),
        ("torchvision:resnet50", contract, "there is no such model; there are deeplabv3"),
        (str(tmp_path / "x.onnx"), contract, "give a checkpoint"),
        (str(tmp_path / "nowhere.safetensors"), contract, "nowhere"),
        (f"torchvision:{SMALL}={tmp_path / 'nowhere.pth'}", contract, "nowhere.pth"),
        (f"torchvision:{SMALL}={tmp_path / 'other.pth'}", contract, "does not hold weights of"),
        (f"torchvision:{SMALL}={tmp_path / 'text.pth'}", contract, "does not hold weights of"),
    ]:
        with pytest.raises(UserError, match=words) as caught:
            load_teacher(source, student)
        assert "\n" not in str(caught.value)


# -- a run -------------------------------------------------------------------------------------------


def test_a_run_with_a_teacher(tmp_path: Path, config: TrainConfig, finished: Path) -> None:
    """Both terms reach the weights; the loss is higher by what they cost."""
    settings = dataclasses.replace(config, epochs=7, val_every=7, strong=0.0)
    train(settings, tmp_path / "alone")
    taught = dataclasses.replace(settings, teacher=str(finished / BEST), distill_cwd=1.0)
    train(taught, tmp_path / "taught")
    (alone,), (with_teacher,) = (
        [record["loss"] for record in log_of(tmp_path / name) if "loss" in record]
        for name in ("alone", "taught")
    )
    assert with_teacher > alone
    ours, theirs = state_of(tmp_path / "taught")[0], state_of(tmp_path / "alone")[0]
    assert ours.keys() == theirs.keys()  # a teacher leaves no trace in the student's files
    assert not torch.equal(ours["model.classifier.weight"], theirs["model.classifier.weight"])
