"""What a MODEL argument may be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge_deeplab.errors import MissingExtra, UserError
from edge_deeplab.imaging import read_image
from edge_deeplab.runtimes import open_model, runtimes
from edge_deeplab.zoo import find, shipped
from tests.runtimes.artefacts import toy_onnx

SHIPPED = [(name, path) for name, files in shipped().items() for path in files.values()]
PORTRAIT = Path(__file__).resolve().parents[2] / "export" / "sample.jpg"


def test_an_unknown_model_lists_those_there_are() -> None:
    with pytest.raises(UserError, match="no model 'portrayt': neither a file nor shipped") as caught:
        open_model("portrayt")
    for name in shipped():
        assert name in str(caught.value)


def test_an_unknown_suffix_lists_those_there_are(tmp_path: Path) -> None:
    path = tmp_path / "model.weird"
    path.write_bytes(b"x")
    with pytest.raises(UserError, match="no runtime opens") as caught:
        open_model(path)
    for runtime in runtimes().values():
        for suffix in runtime.suffixes:
            assert suffix in str(caught.value)


def test_no_two_runtimes_open_the_same_suffix() -> None:
    suffixes = [suffix for runtime in runtimes().values() for suffix in runtime.suffixes]
    assert sorted(suffixes) == sorted(set(suffixes))


def test_a_path_may_be_text_or_path_or_in_the_home_folder(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(toy.parent))
    for model in (toy, str(toy), "~/toy.onnx"):
        with open_model(model) as opened:
            assert opened.contract.name == "toy"


@pytest.mark.parametrize(("name", "path"), SHIPPED)
def test_a_shipped_file_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, path: Path
) -> None:
    """Of several files with one name, the suffix chooses; a file of that name in this folder comes first."""
    monkeypatch.chdir(tmp_path)
    assert find(path.name) == path
    (tmp_path / path.name).write_bytes(b"mine")
    assert find(path.name).resolve() == tmp_path / path.name


def test_a_file_in_this_folder_does_not_hide_a_shipped_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not SHIPPED:
        pytest.skip("no model is shipped")
    name = SHIPPED[0][0]
    (tmp_path / name).write_bytes(b"not a model")
    monkeypatch.chdir(tmp_path)
    try:
        with open_model(name) as opened:
            assert opened.contract.classes
    except MissingExtra as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(("name", "path"), SHIPPED, ids=lambda value: Path(value).name)
def test_shipped_models_open_and_find_the_person(name: str, path: Path) -> None:
    try:
        opened = open_model(path, threads=1)
    except MissingExtra as error:
        pytest.skip(str(error))
    frame = read_image(PORTRAIT)
    with opened as model:
        assert model.contract.provenance.license
        assert model.contract.provenance.weights_sha256
        labels = model.segment(frame).labels
    assert labels.shape == frame.shape[:2]
    assert np.unique(labels).tolist() == [0, 1]
    height, width = labels.shape
    face, wall = (labels[height // 8 : height // 4, int(x * width) :][:, : width // 10] for x in (0.4, 0.6))
    assert face.mean() > 0.8 > 0.2 > wall.mean()


def test_the_name_of_a_shipped_model_is_enough() -> None:
    for name in shipped():
        try:
            with open_model(name) as model:
                assert model.contract.height % 32 == 0
        except MissingExtra as error:
            pytest.skip(str(error))


def test_an_error_inside_a_runtime_is_not_taken_for_an_unknown_option(
    toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise TypeError("a bug")

    monkeypatch.setattr(runtimes()["onnxruntime"], "open", broken)
    with pytest.raises(TypeError, match="a bug"):
        open_model(toy)


def test_a_number_of_threads_no_machine_has_is_refused(tmp_path: Path) -> None:
    """10000 would otherwise hang in the making of a thread pool."""
    with pytest.raises(UserError, match="threads must be from 1 to 256, not 10000"):
        open_model(toy_onnx(tmp_path / "toy.onnx"), threads=10000)
