"""Who takes part, and what they are called."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from edge_deeplab.bench.lineup import Variants, files_of, lineup, peer
from edge_deeplab.bench.peers import KNOWN
from edge_deeplab.bench.record import Contender, PeerInput
from edge_deeplab.errors import UserError
from edge_deeplab.runtimes import runtimes
from edge_deeplab.zoo import shipped

PLAIN = Variants()


def names(found: tuple[Contender, ...]) -> list[str]:
    return [one.name for one in found]


def test_a_shipped_name_is_every_file_a_runtime_opens() -> None:
    known = {suffix for runtime in runtimes().values() for suffix in runtime.suffixes}
    found = files_of("portrait")
    assert {p.name for p in found} >= {p.name for s, p in shipped()["portrait"].items() if s in known}
    assert not any("portrait-open" in p.name for p in found)


def test_a_folder_is_every_artefact_in_it(toy: Path, tmp_path: Path) -> None:
    for name in ("b.onnx", "a.onnx", "notes.txt", ".part-x.onnx"):
        shutil.copy(toy, tmp_path / name)
    assert names(lineup([str(tmp_path)], [], PLAIN)) == ["a.onnx", "b.onnx"]


def test_the_same_file_takes_part_once(toy: Path) -> None:
    assert names(lineup([str(toy), str(toy)], [], PLAIN)) == ["toy.onnx"]


def test_same_names_get_their_folder(toy: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    shutil.copy(toy, tmp_path / "other" / "toy.onnx")
    found = names(lineup([str(toy), str(tmp_path / "other" / "toy.onnx")], [], PLAIN))
    assert found == [f"{toy.parent.name}/toy.onnx", "other/toy.onnx"]


def test_variants_multiply_and_are_named(toy: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / "m.safetensors"
    checkpoint.write_bytes(b"x")
    variants = Variants((1, 2, None), ((64, 96), (128, 192)), ("cpu", "cuda"), ("eager", "compiled"), "cuda")
    found = lineup([str(toy), str(checkpoint)], [], variants)
    assert len(found) == len(set(names(found))) == 3 * 2 * 2 * 2
    assert found[0] == Contender(
        "toy.onnx, cpu, 64x96, 1 thread", str(toy), 1, {"providers": ["cpu"], "size": [64, 96]}
    )
    assert found[5].name == "toy.onnx, cuda, 64x96, all threads"
    assert found[5].options["providers"] == ["cuda", "cpu"]
    assert found[-1].options == {"mode": "compiled", "device": "cuda", "size": [128, 192]}


def test_one_variant_needs_no_words(toy: Path) -> None:
    (one,) = lineup([str(toy)], [], Variants((4,), ((64, 96),), ("cuda",)))
    assert (one.name, one.threads) == ("toy.onnx", 4)


# -- peers -------------------------------------------------------------------------------------


def test_a_published_peer_needs_no_words(tmp_path: Path) -> None:
    path = tmp_path / "sinet_320.onnx"
    path.write_bytes(b"x")
    assert peer(str(path)) == Contender("sinet 320", str(path), peer=KNOWN["sinet_320.onnx"][1])
    assert peer(f"{path},name=mine,channels=RGB").peer == PeerInput(
        KNOWN["sinet_320.onnx"][1].mean, KNOWN["sinet_320.onnx"][1].std, "RGB", "two-logits"
    )
    assert peer(f"{path},name=mine").name == "mine"


def test_another_peer_is_described(tmp_path: Path) -> None:
    path = tmp_path / "net.tflite"
    path.write_bytes(b"x")
    found = peer(f"{path},mean=123.7/116.3/103.5,std=58,output=class:15")
    assert found.name == "net"
    assert found.peer == PeerInput((123.7, 116.3, 103.5), (58.0,), "RGB", "class:15")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("", "say how to feed and read it"),
        (",std=255", "nothing is guessed"),
        (",std=255,output=mask", "output='mask' is none of probability, logit"),
        (",std=255,output=class:x", "output='class:x' is none of"),
        (",std=one,output=logit", "std=one is no number"),
        (",scale=2,std=1,output=logit", "'scale=2' is none of name="),
        (",std=255,output=logit,channels=rgb", "channels must be RGB or BGR"),
    ],
)
def test_a_peer_badly_described(tmp_path: Path, options: str, words: str) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(b"x")
    with pytest.raises(UserError) as refused:
        peer(str(path) + options)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_files_that_are_none(tmp_path: Path, toy: Path) -> None:
    for text, words in ((tmp_path / "gone.onnx", "no such file"), (toy.with_suffix(".pb"), "no such file")):
        with pytest.raises(UserError, match=words):
            peer(str(text))
    (tmp_path / "x.pb").write_bytes(b"x")
    with pytest.raises(UserError, match=r"only \.tflite and \.onnx files can be peers"):
        peer(str(tmp_path / "x.pb"))
    with pytest.raises(UserError, match=r"no runtime opens .*x\.pb"):
        files_of(str(tmp_path / "x.pb"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no models in"):
        files_of(str(tmp_path / "empty"))
    with pytest.raises(UserError, match="no model 'gone'"):
        files_of("gone")
