"""Checkpoints: exact, checked, and never a pickle."""

from __future__ import annotations

import json
import pickletools
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from edge_deeplab.errors import UserError
from edge_deeplab.models.checkpoint import (
    ARCHITECTURE_KEY,
    fingerprint,
    load_checkpoint,
    read_safetensors,
    save_checkpoint,
)
from edge_deeplab.models.deeplab import DeepLabV3Plus
from edge_deeplab.models.variants import variant
from edge_deeplab.spec import METADATA_KEY, PERSON_CLASSES, ContractError, InputContract, Provenance


@pytest.fixture
def model() -> DeepLabV3Plus:
    torch.manual_seed(0)
    model = DeepLabV3Plus(variant("nano").architecture, 1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            module.running_mean.normal_()
    return model.eval()


@pytest.fixture
def nano() -> InputContract:
    provenance = Provenance(("toys (3 pictures)",), "CC0", "abc+dirty", "2025-01-31")
    return InputContract("toy", "nano", 64, 96, PERSON_CLASSES, threshold=0.4, provenance=provenance)


@pytest.fixture
def saved(tmp_path: Path, model: DeepLabV3Plus, nano: InputContract) -> Path:
    path = tmp_path / "toy.safetensors"
    save_checkpoint(path, model, nano)
    return path


def header_of(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return dict(file.metadata())


def weights_of(model: nn.Module) -> dict[str, torch.Tensor]:
    return {k: v for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")}


# -- round trip --------------------------------------------------------------------------------


def test_save_and_load_are_exact(saved: Path, model: DeepLabV3Plus, nano: InputContract) -> None:
    loaded, contract = load_checkpoint(saved)
    assert not loaded.training
    assert loaded.architecture == model.architecture
    assert loaded.head_stride == model.head_stride
    for name, value in weights_of(loaded).items():
        assert value.dtype == torch.float32
        assert torch.equal(value, model.state_dict()[name])
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        assert torch.equal(loaded(x), model(x))
    digest = fingerprint(load_file(saved))
    assert contract == nano.replace(provenance=replace(nano.provenance, weights_sha256=digest))


def test_the_contract_as_written_is_returned(
    tmp_path: Path, model: DeepLabV3Plus, nano: InputContract
) -> None:
    written = save_checkpoint(tmp_path / "toy.safetensors", model, nano)
    assert written.provenance.weights_sha256 == fingerprint(weights_of(model))
    assert load_checkpoint(tmp_path / "toy.safetensors")[1] == written


def test_saving_again_gives_the_same_bytes(tmp_path: Path, saved: Path) -> None:
    loaded, contract = load_checkpoint(saved)
    save_checkpoint(tmp_path / "again.safetensors", loaded, contract)
    assert (tmp_path / "again.safetensors").read_bytes() == saved.read_bytes()


def test_half_precision_is_stored_and_widened(
    tmp_path: Path, model: DeepLabV3Plus, nano: InputContract
) -> None:
    path = tmp_path / "half.safetensors"
    save_checkpoint(path, model, nano, half=True)
    stored = load_file(path)
    assert {v.dtype for v in stored.values()} == {torch.float16}
    assert path.stat().st_size < 0.55 * sum(4 * v.numel() for v in stored.values()) + 20_000
    loaded, _ = load_checkpoint(path)
    for name, value in weights_of(loaded).items():
        assert value.dtype == torch.float32
        assert torch.equal(value, model.state_dict()[name].half().float())
    assert {p.dtype for p in model.parameters()} == {torch.float32}  # the model itself is not touched


def test_memory_formats_and_frozen_models_do_not_matter(
    tmp_path: Path, model: DeepLabV3Plus, nano: InputContract, saved: Path
) -> None:
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    model.requires_grad_(False)
    save_checkpoint(tmp_path / "other.safetensors", model, nano)
    assert (tmp_path / "other.safetensors").read_bytes() == saved.read_bytes()


@pytest.mark.parametrize("name", ["v3", "lite"])
def test_other_variants_and_classes(tmp_path: Path, name: str, four_classes: InputContract) -> None:
    model = DeepLabV3Plus(variant(name).architecture, 4).eval()
    save_checkpoint(tmp_path / "x.safetensors", model, four_classes.replace(variant=name))
    loaded, contract = load_checkpoint(tmp_path / "x.safetensors", variant=name)
    assert (loaded.outputs, contract.output_channels) == (4, 4)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(loaded(x), model(x))


@pytest.mark.parametrize("output_stride", [8, 32])
def test_a_switched_output_stride_is_kept(
    tmp_path: Path, model: DeepLabV3Plus, nano: InputContract, output_stride: int
) -> None:
    model.set_output_stride(output_stride)
    save_checkpoint(tmp_path / "x.safetensors", model, nano)
    loaded, _ = load_checkpoint(tmp_path / "x.safetensors")
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        assert torch.equal(loaded(x), model(x))


# -- fingerprint ---------------------------------------------------------------------------------


def test_the_fingerprint_sees_every_change(model: DeepLabV3Plus) -> None:
    tensors = {k: v.clone() for k, v in weights_of(model).items()}
    original = fingerprint(tensors)
    assert len(original) == 64
    assert fingerprint(dict(reversed(tensors.items()))) == original
    channels_last = {
        k: v.contiguous(memory_format=torch.channels_last) if v.ndim == 4 else v for k, v in tensors.items()
    }
    assert fingerprint(channels_last) == original
    name = "backbone.stem.0.weight"
    one_bit = {**tensors, name: tensors[name].clone()}
    one_bit[name].view(torch.int32).view(-1)[3] ^= 1
    reshaped = {**tensors, name: tensors[name].reshape(-1, 3, 9)}
    renamed = {("x" if k == name else k): v for k, v in tensors.items()}
    fewer = {k: v for k, v in tensors.items() if k != name}
    halved = {k: v.half() for k, v in tensors.items()}
    retyped = {**tensors, name: tensors[name].view(torch.int32)}
    others = [fingerprint(t) for t in (one_bit, reshaped, renamed, fewer, halved, retyped)]
    assert len({original, *others}) == 7


def test_the_fingerprint_takes_scalars_and_empty_tensors() -> None:
    assert fingerprint({"a": torch.tensor(1.0)}) != fingerprint({"a": torch.tensor(2.0)})
    assert fingerprint({"a": torch.zeros(0, 3)}) != fingerprint({"a": torch.zeros(3, 0)})


# -- what is refused -------------------------------------------------------------------------------


def test_changed_weights_are_refused(saved: Path) -> None:
    data = bytearray(saved.read_bytes())
    data[-5] ^= 1
    saved.write_bytes(data)
    with pytest.raises(
        UserError, match=r"toy\.safetensors: the weights are not those its contract was written for"
    ):
        load_checkpoint(saved)


def test_weights_of_another_file_are_refused(saved: Path) -> None:
    tensors = load_file(saved)
    tensors["classifier.bias"] += 1e-3
    save_file(tensors, saved, header_of(saved))
    with pytest.raises(UserError, match="hash differs"):
        load_checkpoint(saved)


@pytest.mark.parametrize("keep", [1, 7, 8, 100, 0.3, 0.99])
def test_a_file_cut_short_is_refused(saved: Path, keep: float) -> None:
    data = saved.read_bytes()
    saved.write_bytes(data[: int(keep if keep >= 1 else keep * len(data))])
    with pytest.raises(UserError, match=r"toy\.safetensors is damaged or no safetensors file"):
        load_checkpoint(saved)


@pytest.mark.parametrize("content", [b"text\n" * 100, b"\xff" * 64, b"{}" * 40])
def test_another_kind_of_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=r"x\.safetensors is damaged or no safetensors file"):
        load_checkpoint(tmp_path / "x.safetensors")


def test_missing_and_empty_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read .*x\.safetensors: no such file"):
        load_checkpoint(tmp_path / "x.safetensors")
    (tmp_path / "x.safetensors").touch()
    with pytest.raises(UserError, match=r"x\.safetensors: the file is empty"):
        load_checkpoint(tmp_path / "x.safetensors")


@pytest.mark.parametrize("missing", [None, METADATA_KEY, ARCHITECTURE_KEY])
def test_somebody_elses_safetensors(saved: Path, missing: str | None) -> None:
    metadata = {k: v for k, v in header_of(saved).items() if k != missing} if missing else None
    save_file(load_file(saved), saved, metadata)
    with pytest.raises(UserError, match=r"is a safetensors file, but not one of edge-deeplab's"):
        load_checkpoint(saved)


def test_another_variant_is_refused(saved: Path) -> None:
    load_checkpoint(saved, variant="nano")
    with pytest.raises(UserError, match=r"toy\.safetensors is a nano model, not lite; use --variant nano"):
        load_checkpoint(saved, variant="lite")


def test_a_contract_of_the_future_is_refused(saved: Path) -> None:
    header = header_of(saved)
    header[METADATA_KEY] = json.dumps({**json.loads(header[METADATA_KEY]), "format": 2})
    save_file(load_file(saved), saved, header)
    with pytest.raises(ContractError, match=r"toy\.safetensors has an input contract of format 2"):
        load_checkpoint(saved)


@pytest.mark.parametrize(
    "change",
    [
        {"width": 1.0},
        {"decoder_channels": [64, 64]},
        {"decoder_channels": None},
        {"output_stride": 7},
        {"surprise": 1},
        None,
        [],
        "nonsense",
    ],
)
def test_an_architecture_that_does_not_fit_is_refused(saved: Path, change: Any) -> None:
    header = header_of(saved)
    architecture = json.loads(header[ARCHITECTURE_KEY])
    header[ARCHITECTURE_KEY] = (
        "nonsense"
        if change == "nonsense"
        else json.dumps({**architecture, **change} if isinstance(change, dict) else change)
    )
    save_file(load_file(saved), saved, header)
    with pytest.raises(
        UserError, match=r"toy\.safetensors: the weights do not fit the architecture in its header"
    ):
        load_checkpoint(saved)


@pytest.mark.parametrize("change", ["missing", "extra", "shape"])
def test_tensors_that_do_not_fit_are_refused(saved: Path, change: str) -> None:
    tensors, header = load_file(saved), header_of(saved)
    if change == "missing":
        del tensors["classifier.bias"]
    elif change == "extra":
        tensors["surprise"] = torch.zeros(1)
    else:
        tensors["classifier.bias"] = torch.zeros(2)
    contract = InputContract.from_json(header[METADATA_KEY])
    provenance = replace(contract.provenance, weights_sha256=fingerprint(tensors))
    header[METADATA_KEY] = contract.replace(provenance=provenance).to_json()
    save_file(tensors, saved, header)
    with pytest.raises(UserError, match="the weights do not fit the architecture"):
        load_checkpoint(saved)


def test_nothing_is_ever_unpickled(tmp_path: Path, model: DeepLabV3Plus) -> None:
    """A pickle under our suffix is refused unread; ours are plain tensors behind a JSON header."""
    trap = tmp_path / "trap.safetensors"
    torch.save(model, trap)  # whole modules: only a real unpickler reads them
    with pytest.raises(UserError, match="damaged or no safetensors file"):
        load_checkpoint(trap)


def test_our_files_hold_no_pickle(saved: Path) -> None:
    data = saved.read_bytes()
    length = int.from_bytes(data[:8], "little")
    assert set(json.loads(data[8 : 8 + length])) > {"__metadata__", "classifier.weight"}
    with pytest.raises(ValueError, match=r"at position|opcode|exhausted"):
        list(pickletools.genops(data))


# -- trouble while writing -------------------------------------------------------------------------


def test_a_full_disk_leaves_the_old_checkpoint(
    saved: Path,
    model: DeepLabV3Plus,
    nano: InputContract,
    full_disk: Callable[[int], AbstractContextManager[None]],
) -> None:
    before = saved.read_bytes()
    with full_disk(len(before) // 2), pytest.raises(UserError, match=r"cannot write .*toy\.safetensors"):
        save_checkpoint(saved, model, nano, half=False)
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


def test_read_safetensors_gives_tensors_and_header(tmp_path: Path) -> None:
    save_file({"a": torch.arange(3)}, tmp_path / "x.safetensors", {"key": "value"})
    tensors, header = read_safetensors(tmp_path / "x.safetensors")
    assert torch.equal(tensors["a"], torch.arange(3))
    assert header == {"key": "value"}
    save_file({"a": torch.arange(3)}, tmp_path / "x.safetensors")
    assert read_safetensors(tmp_path / "x.safetensors")[1] == {}
