"""Folding, layers, simulated INT8, remedies, ranking and diagnosis, on networks with known trouble."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edge_deeplab import imaging
from edge_deeplab.export.diagnose import compare, torch_layers
from edge_deeplab.export.fold import fold, layers
from edge_deeplab.export.remedies import by_harm, correct_biases, equalise
from edge_deeplab.export.sample import augmented
from edge_deeplab.export.simulate import observe, rounded_input, rounded_weight, rounding
from edge_deeplab.models.checkpoint import load_checkpoint
from edge_deeplab.models.deeplab import DeepLabV3Plus
from edge_deeplab.models.variants import variant
from edge_deeplab.zoo import find


@pytest.fixture(scope="session")
def portrait() -> DeepLabV3Plus:
    return load_checkpoint(find("portrait", prefer=(".safetensors",)))[0]


@pytest.fixture(scope="session")
def images() -> Tensor:
    """Four views at a small size."""
    _, contract = load_checkpoint(find("portrait", prefer=(".safetensors",)))
    contract = contract.replace(height=96, width=64)
    return torch.from_numpy(np.concatenate([imaging.preprocess(f, contract) for _, f in augmented(4)]))


def sqnr(wanted: Tensor, given: Tensor) -> float:
    noise = (wanted - given).detach().square().sum()
    return 10 * float(torch.log10(wanted.detach().square().sum() / noise))


def in_int8(
    network: DeepLabV3Plus, images: Tensor, keep: Collection[str] = (), *, symmetric: bool = False
) -> Tensor:
    with rounding(network, observe(network, images), keep, symmetric=symmetric), torch.no_grad():
        answer: Tensor = network(images)
    return answer


@torch.no_grad()
def badly_scaled(network: DeepLabV3Plus) -> DeepLabV3Plus:
    """The same function with unequal channels: every one of blocks 3, 5 and the decoder by a power of two.

    Only downwards, so that no ReLU6 cuts what it did not cut before.
    """
    network = fold(network)
    named = {layer.name: layer for layer in layers(network)}
    generator = torch.Generator().manual_seed(1)
    for name in ("backbone.blocks.3.project", "aspp.atrous.0.1", "decoder.refine.0.1", "classifier"):
        after = named[name]
        before = named[after.follows or ""].convolution
        factor = 2.0 ** -torch.randint(0, 9, (before.out_channels,), generator=generator).float()
        if isinstance(named[after.follows or ""].activation, nn.ReLU6):
            factor = factor.clamp(min=1)  # a cut channel must stay where it is
        before.weight *= factor[:, None, None, None]
        before.bias *= factor  # type: ignore[operator]
        after.convolution.weight /= factor[None, :, None, None]
    return network


# -- folding -------------------------------------------------------------------------------------


def test_folding_changes_nothing(portrait: DeepLabV3Plus, images: Tensor) -> None:
    folded = fold(portrait)
    with torch.no_grad():
        assert sqnr(portrait(images), folded(images)) > 90
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert any(isinstance(module, nn.BatchNorm2d) for module in portrait.modules())
    twice = fold(folded)
    assert torch.equal(twice(images), folded(images))


@pytest.mark.parametrize("name", ["v3plus", "v3", "lite", "nano"])
def test_layers_of_every_variant(name: str) -> None:
    network = fold(DeepLabV3Plus(variant(name).architecture, 21).eval())
    found = layers(network)
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert {layer.convolution for layer in found} == set(convolutions)
    assert (found[0].name, found[0].sources) == ("backbone.stem", ())
    assert found[-1].name == "classifier"
    before = set()
    for layer in found:
        assert set(layer.sources) <= before
        before.add(layer.name)
    named = {layer.name: layer for layer in found}
    assert named["backbone.blocks.3.depthwise"].follows == "backbone.blocks.3.expand"
    assert named["backbone.blocks.3.expand"].follows is None  # reads a sum
    assert named["backbone.blocks.3.expand"].sources == (
        "backbone.blocks.1.project",
        "backbone.blocks.2.project",
    )
    assert named["aspp.pointwise"].follows is None  # block 16 has more readers


# -- simulation ----------------------------------------------------------------------------------


def test_rounding_is_eight_bits() -> None:
    x = torch.linspace(-1, 127 / 128, 10_000)
    rounded = rounded_input(x, -1, 127 / 128)
    assert len(rounded.unique()) == 256
    assert (rounded - x).abs().max() <= 1 / 256 + 1e-6
    assert rounded_input(torch.zeros(1), -1, 127 / 128) == 0
    steps = rounded_input(x, -0.3, 127 / 128, symmetric=True) / (127 / 128 / 127)
    assert len(steps.unique()) == 255
    assert (steps - steps.round()).abs().max() < 1e-4
    assert (steps.min(), steps.max()) == (pytest.approx(-127), pytest.approx(127))
    only_above = rounded_input(x.clamp(min=0), 0, 127 / 128, symmetric=True)
    assert len(only_above.unique()) == 128
    weight = torch.randn(5, 7, 3, 3) * torch.tensor([1, 10, 1e-3, 1e4, 0])[:, None, None, None]
    integers = rounded_weight(weight) / (weight.abs().amax((1, 2, 3), keepdim=True).clamp(min=1e-12) / 127)
    assert (integers - integers.round()).abs().max() < 1e-4
    assert integers.abs().max() == pytest.approx(127, abs=1e-4)


def test_rounding_ends_with_its_block(portrait: DeepLabV3Plus, images: Tensor) -> None:
    network = fold(portrait)
    before = network(images)
    rounded = in_int8(network, images)
    assert 10 < sqnr(before, rounded) < 40
    assert torch.equal(network(images), before)


def test_what_a_layer_in_float_reads_was_rounded_where_it_was_made(
    portrait: DeepLabV3Plus, images: Tensor
) -> None:
    """But not where the layer that made it is in float too, and nobody else reads it."""
    network = fold(portrait)
    block = "backbone.blocks.3"
    given: dict[str, Tensor] = {}
    watched = {layer.name: layer.convolution for layer in layers(network) if layer.name.startswith(block)}
    for name, convolution in watched.items():
        convolution.register_forward_hook(lambda _, x, y, name=name: given.__setitem__(name, x[0]))
    seen = observe(network, images)

    def levels(keep: Collection[str]) -> list[bool]:
        with rounding(network, seen, keep), torch.no_grad():
            network(images)
        return [len(given[name].unique()) <= 256 for name in watched]

    assert list(watched) == [f"{block}.expand", f"{block}.depthwise", f"{block}.project"]
    assert levels(()) == [True, True, True]
    assert levels([f"{block}.depthwise"]) == [True, True, True]
    assert levels([f"{block}.depthwise", f"{block}.project"]) == [True, True, False]
    assert levels(list(seen)) == [True, False, False]  # a sum is rounded whoever reads it


# -- remedies ------------------------------------------------------------------------------------


def test_equalisation_computes_the_same(portrait: DeepLabV3Plus, images: Tensor) -> None:
    network = fold(portrait)
    equalised = equalise(network, images)
    assert sqnr(network(images), equalised(images)) > 80
    stem, changed = network.backbone.stem[0], equalised.backbone.stem[0]
    assert isinstance(stem, nn.Conv2d)
    assert isinstance(changed, nn.Conv2d)
    assert not torch.equal(stem.weight, changed.weight)


def test_equalisation_never_raises_a_channel_above_six(portrait: DeepLabV3Plus, images: Tensor) -> None:
    network = fold(portrait)
    before, after = observe(network, images), observe(equalise(network, images), images)
    for layer in layers(network):
        if isinstance(layer.activation, nn.ReLU6):
            was, became = before[layer.name].highest, after[layer.name].highest
            assert (became >= was - 1e-4).all(), layer.name  # never lowered: a cut value would come back
            assert (became[was < 5.4] < 5.5).all(), layer.name


def test_equalisation_mends_a_badly_scaled_network(portrait: DeepLabV3Plus, images: Tensor) -> None:
    broken = badly_scaled(portrait)
    wanted = portrait(images)
    assert sqnr(wanted, broken(images)) > 80
    bad = sqnr(wanted, in_int8(broken, images))
    good = sqnr(wanted, in_int8(equalise(broken, images), images))
    assert good > bad + 3
    assert good > sqnr(wanted, in_int8(fold(portrait), images)) - 1.5


def test_bias_correction_removes_the_shift(portrait: DeepLabV3Plus, images: Tensor) -> None:
    network = fold(portrait)
    corrected = correct_biases(network, images)
    wanted = observe(network, images)

    def shift(candidate: DeepLabV3Plus) -> float:
        """Root mean square over all layers' channels of how far rounding moves their means."""
        with rounding(candidate, wanted):
            found = observe(candidate, images)
        return float(
            torch.cat([found[name].mean - wanted[name].mean for name in wanted]).square().mean().sqrt()
        )

    assert shift(corrected) < 0.1 * shift(network)
    assert sqnr(network(images), in_int8(corrected, images)) > sqnr(network(images), in_int8(network, images))
    for before, after in zip(layers(network), layers(corrected), strict=True):
        assert torch.equal(before.convolution.weight, after.convolution.weight)


@pytest.mark.parametrize("equalised", [False, True], ids=["plain", "equalised"])
def test_biases_fit_the_layers_that_stay_in_float(
    portrait: DeepLabV3Plus, images: Tensor, equalised: bool
) -> None:
    """Better than with none in float, and better than with biases for none in float."""
    network = fold(portrait)
    if equalised:
        network = equalise(network, images)
    ranking = by_harm(network, images)
    wanted = network(images)
    for_all = correct_biases(network, images)
    none = sqnr(wanted, in_int8(for_all, images))
    for count in (2, 8, 16):
        kept = ranking[:count]
        own = sqnr(wanted, in_int8(correct_biases(network, images, kept), images, kept))
        assert own > none
        assert own > sqnr(wanted, in_int8(for_all, images, kept))


def test_biases_fit_the_scheme(portrait: DeepLabV3Plus, images: Tensor) -> None:
    network = fold(portrait)
    wanted = observe(network, images)

    def shift(symmetric: bool) -> float:
        """Of the logits in a graph with zero points 0, biases corrected for that or for the other."""
        corrected = correct_biases(network, images, symmetric=symmetric)
        with rounding(corrected, wanted, symmetric=True), torch.no_grad():
            return float((corrected(images).mean() - wanted["classifier"].mean).abs().max())

    assert shift(symmetric=True) < 0.5 * shift(symmetric=False)


def test_the_harmful_layer_comes_first(portrait: DeepLabV3Plus, images: Tensor) -> None:
    """One channel of a huge weight leaves its row a handful of levels."""
    network = fold(portrait)
    victim = "backbone.blocks.10.project"
    layer = next(layer for layer in layers(network) if layer.name == victim)
    before = next(entry for entry in layers(network) if entry.name == layer.follows).convolution
    before.weight.data[0] /= 500  # one channel hardly ever speaks ...
    before.bias.data[0] /= 500  # type: ignore[index]
    layer.convolution.weight.data[:, 0] *= 500  # ... but loudly
    ranking = by_harm(network, images)
    assert len(ranking) == len(layers(network))
    assert ranking[0] == victim


# -- diagnosis -----------------------------------------------------------------------------------


def test_a_diagnosis_names_the_layer_that_went_wrong(portrait: DeepLabV3Plus, images: Tensor) -> None:
    network, wrong = fold(portrait), fold(portrait)
    victim = "backbone.blocks.5.depthwise"
    layer = next(layer for layer in layers(wrong) if layer.name == victim)
    layer.convolution.weight.data *= 1.3
    sources, run = torch_layers(network)
    _, run_wrong = torch_layers(wrong)
    picture = images[:1].numpy()
    errors = {error.name: error for error in compare(sources, [(run(picture), run_wrong(picture))])}
    assert list(errors) == list(sources)
    assert errors["backbone.blocks.5.expand"].sqnr == 99
    assert max(errors.values(), key=lambda error: error.drop).name == victim
    assert errors["classifier"].sqnr < 60


def test_a_diagnosis_counts_what_is_no_number() -> None:
    wanted = {"a": np.ones((1, 2, 2, 2), np.float32)}
    given = {"a": np.ones((1, 2, 2, 2), np.float32)}
    given["a"][0, 0, 0, 0], given["a"][0, 1, 1, 1] = np.nan, np.inf
    (error,) = compare({"a": (), "left out": ("a",)}, [(wanted, given)])
    assert error.bad == 0.25
    assert error.sqnr == pytest.approx(10 * np.log10(8 / 2))
    assert error.largest == 1


def test_equal_outputs_are_clean() -> None:
    same = {"a": np.zeros((1, 1, 2, 2), np.float32)}
    (error,) = compare({"a": ()}, [(same, same)])
    assert (error.sqnr, error.drop, error.largest, error.bad) == (99, 0, 0, 0)
