"""Starting weights: what they compute elsewhere, they compute here."""

from __future__ import annotations

import errno
import zipfile
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edge_deeplab.errors import UserError
from edge_deeplab.models.checkpoint import save_checkpoint
from edge_deeplab.models.deeplab import DeepLabV3Plus
from edge_deeplab.models.mobilenetv2 import MobileNetV2
from edge_deeplab.models.pretrained import initialise
from edge_deeplab.models.variants import Architecture, variant
from edge_deeplab.spec import InputContract

SMALL_HEAD = {"aspp_channels": 16, "atrous": False, "low_level_channels": 8, "decoder_channels": (16,)}


def small(seed: int, **changes: Any) -> DeepLabV3Plus:
    torch.manual_seed(seed)
    settings: dict[str, Any] = {**SMALL_HEAD, "width": 0.5, **changes}
    return DeepLabV3Plus(Architecture(**settings), 1)


def shake(model: nn.Module, seed: int = 0) -> None:
    """Give every batch norm statistics and parameters of its own."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.2, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
            module.bias.data.normal_(0, 0.3, generator=generator)


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(9))


def features(model: DeepLabV3Plus, x: Tensor) -> Tensor:
    model.eval()
    with torch.no_grad():
        y: Tensor = model.backbone(x)[1]
    return y


# -- folded weights ------------------------------------------------------------------------------


def folded(backbone: MobileNetV2) -> dict[str, Any]:
    """What a converter writes: every convolution with the batch norm behind it folded in, in order."""
    arrays: dict[str, Any] = {}
    convolution: nn.Conv2d | None = None
    for name, module in backbone.named_modules():
        if isinstance(module, nn.Conv2d):
            convolution = module
        elif isinstance(module, nn.BatchNorm2d):
            assert convolution is not None
            assert module.running_mean is not None
            assert module.running_var is not None
            factor = module.weight / torch.sqrt(module.running_var + module.eps)
            weight = convolution.weight * factor.view(-1, 1, 1, 1)
            bias = module.bias - module.running_mean * factor
            prefix = f"{len(arrays) // 2:02d}|{name}"
            arrays[f"{prefix}|weight"] = weight.detach().numpy()
            arrays[f"{prefix}|bias"] = bias.detach().numpy()
    return arrays


@pytest.fixture
def source() -> DeepLabV3Plus:
    model = small(1)
    shake(model)
    return model


def test_folded_weights_keep_the_function(tmp_path: Path, source: DeepLabV3Plus, images: Tensor) -> None:
    arrays = folded(source.backbone)
    assert len(arrays) == 2 * 51
    np.savez(tmp_path / "w.npz", **arrays)
    model = small(2).train()
    log = initialise(model, str(tmp_path / "w.npz"), images)
    assert "w.npz" in log
    assert "2 pictures" in log
    assert model.training  # as it was
    wanted = features(source, images)
    assert wanted.abs().mean() > 0.01
    torch.testing.assert_close(features(model, images), wanted, rtol=1e-3, atol=1e-4)
    other = torch.randn(1, 3, 96, 64)  # not only on the pictures that it was measured on
    torch.testing.assert_close(features(model, other), features(source, other), rtol=1e-3, atol=1e-4)


def test_folded_weights_get_a_batch_norm_that_fits_the_pictures(
    tmp_path: Path, source: DeepLabV3Plus, images: Tensor
) -> None:
    """In training mode, where norms take the batch's own statistics, the function is the same too."""
    np.savez(tmp_path / "w.npz", **folded(source.backbone))
    model = small(2)
    initialise(model, str(tmp_path / "w.npz"), images)
    wanted = features(source, images)
    model.train()
    with torch.no_grad():
        torch.testing.assert_close(model.backbone(images)[1], wanted, rtol=1e-2, atol=1e-3)


def test_only_the_backbone_is_filled_and_no_hook_stays(
    tmp_path: Path, source: DeepLabV3Plus, images: Tensor
) -> None:
    np.savez(
        tmp_path / "w.npz",
        **folded(source.backbone),
        **{"51|Conv_1|weight": np.zeros((1, 1)), "51|Conv_1|bias": np.zeros(1)},
    )
    model = small(2).eval()
    before = {k: v.clone() for k, v in model.state_dict().items() if not k.startswith("backbone.")}
    initialise(model, str(tmp_path / "w.npz"), images)
    assert not model.training
    assert all(torch.equal(model.state_dict()[k], v) for k, v in before.items())
    assert not any(m._forward_pre_hooks for m in model.modules())


def test_folded_weights_of_another_width(tmp_path: Path, source: DeepLabV3Plus, images: Tensor) -> None:
    np.savez(tmp_path / "w.npz", **folded(source.backbone))
    message = r"w\.npz does not hold a MobileNetV2 of this variant's width \(51 convolutions, in order\)"
    with pytest.raises(UserError, match=message):
        initialise(small(2, width=1.0), str(tmp_path / "w.npz"), images)
    np.savez(tmp_path / "w.npz", **dict(list(folded(source.backbone).items())[:-2]))
    with pytest.raises(UserError, match=message):
        initialise(small(2), str(tmp_path / "w.npz"), images)
    np.savez(tmp_path / "w.npz", something=np.zeros(3))
    with pytest.raises(UserError, match=message):
        initialise(small(2), str(tmp_path / "w.npz"), images)


def test_folded_biases_of_another_shape(tmp_path: Path, source: DeepLabV3Plus, images: Tensor) -> None:
    """A bias of one value would be broadcast without a word."""
    arrays = folded(source.backbone)
    name = next(k for k in arrays if k.endswith("|bias"))
    np.savez(tmp_path / "w.npz", **{**arrays, name: np.zeros(1, np.float32)})
    with pytest.raises(UserError, match=r"w\.npz"):
        initialise(small(2), str(tmp_path / "w.npz"), images)


def narrowed(arrays: dict[str, Any]) -> dict[str, Any]:
    """Arrays as TF-Slim has them at width 0.5: the second stage has 12 channels, not 16."""
    narrow = {16: 12, 96: 72}
    weights = [k for k in arrays if k.endswith("|weight")]
    changed: dict[str, Any] = {}
    before = 3
    for index, key in enumerate(weights):
        bias = key.replace("|weight", "|bias")
        weight, shift = arrays[key], arrays[bias]
        outputs = len(weight)
        if 5 <= index <= 10:  # from the first convolution that gives 16 channels to the last that takes 96
            outputs = narrow[outputs] if index < 10 or outputs == 96 else outputs
        inputs = weight.shape[1] if weight.shape[1] == 1 else before
        changed[key], changed[bias] = weight[:outputs, :inputs], shift[:outputs]
        before = outputs
    return changed


def test_narrower_folded_weights_go_into_the_corner_of_wider_ones(
    tmp_path: Path, source: DeepLabV3Plus, images: Tensor
) -> None:
    """The other channels do not disturb them at first, and are listened to in time."""
    arrays = narrowed(folded(source.backbone))
    np.savez(tmp_path / "w.npz", **arrays)
    narrow, other = small(2), small(7)
    told = initialise(narrow, str(tmp_path / "w.npz"), images)
    initialise(other, str(tmp_path / "w.npz"), images)
    assert "7 convolutions of it in wider ones" in told
    torch.testing.assert_close(features(narrow, images), features(other, images), rtol=1e-3, atol=1e-4)
    narrow.train()
    narrow(images).sum().backward()
    reader = [p for p in narrow.backbone.parameters() if p.ndim == 4][11]
    assert reader.grad is not None
    assert reader.grad[:, 72:].abs().max() > 0  # learns what to take from the new channels


@pytest.mark.parametrize("damage", ["cut", "cut early", "flipped", "text", "npy", "zip", "pickle"])
def test_a_damaged_npz(tmp_path: Path, source: DeepLabV3Plus, images: Tensor, damage: str) -> None:
    path = tmp_path / "w.npz"
    np.savez_compressed(path, **folded(source.backbone))
    data = path.read_bytes()
    if damage == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "cut early":
        path.write_bytes(data[:10])
    elif damage == "flipped":
        middle = len(data) // 2
        path.write_bytes(
            data[:middle] + bytes(b ^ 0xFF for b in data[middle : middle + 64]) + data[middle + 64 :]
        )
    elif damage == "text":
        path.write_text("no archive\n" * 10)
    elif damage == "npy":
        with path.open("wb") as file:
            np.save(file, np.zeros(3))
    elif damage == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("readme.txt", "no array")
    else:
        objects: dict[str, Any] = {"00|x|weight": np.array([{}], object)}
        np.savez(path, **objects)
    with pytest.raises(UserError, match=r"w\.npz"):
        initialise(small(2), str(path), images)


# -- torchvision -----------------------------------------------------------------------------------


@pytest.fixture
def theirs() -> nn.Module:
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(4)
    network: nn.Module = models.mobilenet_v2(weights=None).eval()
    shake(network)
    return network


def test_torchvisions_weights_keep_their_function(tmp_path: Path, theirs: Any, images: Tensor) -> None:
    torch.save(theirs.state_dict(), tmp_path / "mobilenet.pth")
    model = small(2, width=1.0, output_stride=32, padding="symmetric")
    for module in model.modules():  # TF-Slim's epsilon is ours, theirs is PyTorch's
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-5
    head = {k: v.clone() for k, v in model.state_dict().items() if not k.startswith("backbone.")}
    log = initialise(model, str(tmp_path / "mobilenet.pth"), images)
    assert "torchvision" in log
    with torch.no_grad():
        wanted = theirs.features[:18](images)
        wanted_low_level = theirs.features[:4](images)
    assert wanted.abs().mean() > 0.01
    model.eval()
    with torch.no_grad():
        low_level, ours = model.backbone(images)
    torch.testing.assert_close(ours, wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(low_level, wanted_low_level, rtol=1e-5, atol=1e-5)
    assert all(torch.equal(model.state_dict()[k], v) for k, v in head.items())


def test_torchvisions_weights_keep_their_function_where_variances_are_small(
    tmp_path: Path, theirs: Any, images: Tensor
) -> None:
    """Our norms' epsilon of 1e-3 is a hundred times theirs: it must not scale quiet channels down."""
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_var is not None
            module.running_var[::3] = 1e-3
    torch.save(theirs.state_dict(), tmp_path / "mobilenet.pth")
    model = small(2, width=1.0, output_stride=32, padding="symmetric")
    initialise(model, str(tmp_path / "mobilenet.pth"), images)
    with torch.no_grad():
        wanted = theirs.features[:2](images)
    model.eval()
    with torch.no_grad():
        ours = model.backbone.blocks[0](model.backbone.stem(images))
    torch.testing.assert_close(ours, wanted, rtol=1e-3, atol=1e-3)


def test_torchvisions_weights_of_another_width(tmp_path: Path, theirs: nn.Module, images: Tensor) -> None:
    torch.save(theirs.state_dict(), tmp_path / "mobilenet.pt")
    with pytest.raises(UserError, match="not a torchvision mobilenet_v2 of this variant's width"):
        initialise(small(2), str(tmp_path / "mobilenet.pt"), images)


@pytest.mark.parametrize("content", [[1, 2], {"features.0.0.weight": 3}, {}, torch.zeros(3), "text"])
def test_a_pth_of_something_else(tmp_path: Path, images: Tensor, content: Any) -> None:
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(UserError) as caught:
        initialise(small(2), str(tmp_path / "x.pth"), images)
    assert "\n" not in str(caught.value)


def test_a_pth_that_would_run_code(tmp_path: Path, images: Tensor) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"x\.pth is damaged or no plain state dict"):
        initialise(small(2), str(tmp_path / "x.pth"), images)


@pytest.mark.parametrize("keep", [5, 0.5])
def test_a_damaged_pth(tmp_path: Path, theirs: nn.Module, images: Tensor, keep: float) -> None:
    torch.save(theirs.state_dict(), tmp_path / "x.pth")
    data = (tmp_path / "x.pth").read_bytes()
    (tmp_path / "x.pth").write_bytes(data[: int(keep if keep >= 1 else keep * len(data))])
    with pytest.raises(UserError, match=r"x\.pth is damaged or no plain state dict"):
        initialise(small(2), str(tmp_path / "x.pth"), images)


@pytest.mark.parametrize(
    "error",
    [
        URLError(OSError(errno.ENETUNREACH, "Network is unreachable")),
        URLError("no host given"),
        TimeoutError("timed out"),
        RuntimeError('invalid hash value (expected "7ebf99e0", got "0123abcd")'),
    ],
)
def test_a_failed_download_is_one_line_with_a_cure(
    monkeypatch: pytest.MonkeyPatch, images: Tensor, error: Exception
) -> None:
    models = pytest.importorskip("torchvision.models")

    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(models.MobileNet_V2_Weights, "get_state_dict", fail)
    with pytest.raises(
        UserError, match=r"cannot download https://\S+\.pth: .*; fetch it elsewhere and give it as --init"
    ) as caught:
        initialise(small(2, width=1.0), "torchvision", images)
    assert "\n" not in str(caught.value)


def test_a_download_is_mapped_like_a_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, theirs: nn.Module, images: Tensor
) -> None:
    models = pytest.importorskip("torchvision.models")
    monkeypatch.setattr(models.MobileNet_V2_Weights, "get_state_dict", lambda *_, **__: theirs.state_dict())
    torch.save(theirs.state_dict(), tmp_path / "mobilenet.pth")
    downloaded, read = small(2, width=1.0), small(2, width=1.0)
    initialise(downloaded, "torchvision", images)
    initialise(read, str(tmp_path / "mobilenet.pth"), images)
    assert torch.equal(features(downloaded, images), features(read, images))


# -- our own checkpoints ---------------------------------------------------------------------------


def test_a_checkpoint_is_taken_whole(tmp_path: Path, contract: InputContract, images: Tensor) -> None:
    torch.manual_seed(1)
    source = DeepLabV3Plus(variant("nano").architecture, 1).eval()
    shake(source)
    for half in (False, True):
        save_checkpoint(tmp_path / "x.safetensors", source, contract, half=half)
        torch.manual_seed(2)
        model = DeepLabV3Plus(variant("nano").architecture, 1).eval()
        assert "classifier" not in initialise(model, str(tmp_path / "x.safetensors"), images)
        assert {p.dtype for p in model.parameters()} == {torch.float32}
        with torch.no_grad():
            tolerance = 0.05 if half else 0
            torch.testing.assert_close(model(images), source(images), rtol=tolerance, atol=tolerance)


def test_another_number_of_classes_starts_the_classifier_anew(
    tmp_path: Path, contract: InputContract, images: Tensor
) -> None:
    source = DeepLabV3Plus(variant("nano").architecture, 1)
    save_checkpoint(tmp_path / "x.safetensors", source, contract)
    model = DeepLabV3Plus(variant("nano").architecture, 5)
    own = {k: v.clone() for k, v in model.state_dict().items() if k.startswith("classifier.")}
    assert initialise(model, str(tmp_path / "x.safetensors"), images).endswith("but the classifier")
    for name, value in model.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(value, own[name] if name in own else source.state_dict()[name])


@pytest.mark.parametrize("count", [2, 4])
def test_classes_in_another_order_keep_their_rows(
    tmp_path: Path, contract: InputContract, four_classes: InputContract, images: Tensor, count: int
) -> None:
    origin = contract if count == 2 else four_classes
    torch.manual_seed(1)
    source = DeepLabV3Plus(variant("nano").architecture, origin.output_channels).eval()
    nn.init.normal_(source.classifier.weight)
    nn.init.normal_(source.classifier.bias)
    save_checkpoint(tmp_path / "x.safetensors", source, origin)
    names = [info.name for info in origin.classes]
    model = DeepLabV3Plus(variant("nano").architecture, origin.output_channels).eval()
    words = initialise(model, str(tmp_path / "x.safetensors"), images, names[::-1])
    assert words.endswith("the classifier's rows in the order of the data's classes")
    with torch.no_grad():
        ours, theirs = model(images), source(images)
    torch.testing.assert_close(ours, -theirs if count == 2 else theirs.flip(1))
    # The same order: as it is, and nothing to tell.
    words = initialise(model, str(tmp_path / "x.safetensors"), images, names)
    assert words.endswith("x.safetensors")
    assert torch.equal(model.classifier.weight, source.classifier.weight)


def test_other_names_start_the_classifier_anew(
    tmp_path: Path, four_classes: InputContract, images: Tensor
) -> None:
    source = DeepLabV3Plus(variant("nano").architecture, 4)
    save_checkpoint(tmp_path / "x.safetensors", source, four_classes)
    model = DeepLabV3Plus(variant("nano").architecture, 4)
    own = model.classifier.weight.detach().clone()
    names = [info.name for info in four_classes.classes[:3]]
    words = initialise(model, str(tmp_path / "x.safetensors"), images, [*names, "something new"])
    assert words.endswith("but the classifier")
    assert torch.equal(model.classifier.weight, own)
    assert torch.equal(model.backbone.stem[0].weight, source.backbone.stem[0].weight)


def test_the_state_of_a_run_is_no_start(tmp_path: Path, images: Tensor) -> None:
    from safetensors.torch import save_file

    save_file({"model.classifier.weight": torch.zeros(1)}, tmp_path / "last.safetensors")
    with pytest.raises(UserError, match=r"is the state of a run; give its best\.safetensors, or"):
        initialise(small(2), str(tmp_path / "last.safetensors"), images)


def test_a_checkpoint_of_another_variant(tmp_path: Path, contract: InputContract, images: Tensor) -> None:
    save_checkpoint(tmp_path / "x.safetensors", DeepLabV3Plus(variant("nano").architecture, 1), contract)
    with pytest.raises(
        UserError, match=r"x\.safetensors is a checkpoint of another variant; its tensors do not fit"
    ):
        initialise(DeepLabV3Plus(variant("lite").architecture, 1), str(tmp_path / "x.safetensors"), images)


# -- everything else -------------------------------------------------------------------------------


@pytest.mark.parametrize("source_name", ["imagenet", "weights.onnx", "weights.ckpt", "."])
def test_an_unknown_kind_of_source(images: Tensor, source_name: str) -> None:
    with pytest.raises(
        UserError,
        match=r"--init .*: give torchvision, a shipped name, or a \.npz, \.pth or \.safetensors file",
    ):
        initialise(small(2), source_name, images)


@pytest.mark.parametrize("suffix", [".npz", ".pth", ".safetensors"])
def test_missing_and_empty_files(tmp_path: Path, images: Tensor, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    with pytest.raises(UserError, match=r"cannot read .*x\.\w+: no such file"):
        initialise(small(2), str(path), images)
    path.touch()
    with pytest.raises(UserError, match=r"cannot read .*x\.\w+: the file is empty"):
        initialise(small(2), str(path), images)
