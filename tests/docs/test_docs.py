"""Everything in the documents, copied and run from a clean install; and the tests of what does that."""

from __future__ import annotations

import fcntl
import re
from pathlib import Path

import pytest

from edge_deeplab.cli import parser
from tests.docs import blocks as of
from tests.docs.blocks import ROOT, MarkerError, documents
from tests.docs.install import Install, install
from tests.docs.running import Broken, check, check_block

# What the documents' own code needs beyond the package's requirements is in the extra "dev".
pytest.importorskip("build", reason="the package build is not installed")
pytest.importorskip("torch", reason="documents train and export")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Install:
    """One clean install for all processes of a test run."""
    base = tmp_path_factory.getbasetemp()
    if hasattr(request.config, "workerinput"):
        base = base.parent
    folder = base / "clean-install"
    with (base / "clean-install.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (folder / "done").exists():
            return Install(folder)
        answer = install(folder)
        (folder / "done").touch()
    return answer


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_document(path: Path, made: Install) -> None:
    outcomes = check(path, made)
    assert [outcome.problem for outcome in outcomes if outcome.problem] == []
    absent = [f"{outcome.block}: {outcome.absent}" for outcome in outcomes if outcome.absent]
    if absent:
        pytest.skip(f"the rest ran; {'; '.join(absent)}")


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    text = re.sub(r"^ *```.*?^ *```", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = path.parent / name if name else path
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    assert broken == []


def anchors(path: Path) -> set[str]:
    """Of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ +(.+?) *$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_within_sentences_exist(path: Path) -> None:
    """``edge-deeplab NAME --option`` in running text and tables: command and options are there."""
    text = re.sub(r"^ *```.*?^ *```", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    wrong = []
    top = parser()
    for quoted in re.findall(r"`edge-deeplab ([^`]+)`", text):
        here = top
        for word in re.split(r"[\s|\[\]\\=]+", quoted):
            choices = [action.choices for action in here._actions if action.nargs == "A..."]
            if choices and choices[0] and word in choices[0]:
                here = choices[0][word]  # type: ignore[index]
            elif word.startswith("--") and word not in here._option_string_actions:
                wrong.append(f"{quoted}: {word}")
    assert wrong == []


# -- the markers -----------------------------------------------------------------------------------


def written(tmp_path: Path, text: str) -> list[of.Block]:
    path = tmp_path / "page.md"
    path.write_text(text, encoding="utf-8")
    return of.blocks(path)


def test_blocks_are_found_with_their_markers(tmp_path: Path) -> None:
    found = written(
        tmp_path,
        "Words.\n\n```\nedge-deeplab models  # all\n```\n\n<!-- parsed: trains for hours -->\n```sh\n"
        "edge-deeplab train \\\n  --data x\n\n# a comment\npip install x\n```\n\n```\nPATH/\n  a.jpg\n```\n\n"
        "- item\n\n  <!-- not run: needs a Jetson -->\n\n  ```python\n  import x\n    y\n  ```\n",
    )
    assert [(b.language, b.how, b.line) for b in found] == [
        ("sh", "run", 3),
        ("sh", "parsed", 8),
        ("text", "run", 16),
        ("python", "not run", 25),
    ]
    assert found[0].why == ""
    assert found[1].commands == ["edge-deeplab train    --data x", "pip install x"]
    assert found[3].text == "import x\n  y\n"
    assert found[3].why == "needs a Jetson"


def test_one_marker_for_a_whole_document(tmp_path: Path) -> None:
    text = "<!-- every block parsed: measures for hours -->\n\n```\nmake\n```\n\n```\nA/\n```\n\n"
    text += "<!-- started: serves -->\n```\nmake serve\n```\n"
    assert [block.how for block in written(tmp_path, text)] == ["parsed", "run", "started"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("```swift\nlet x = 1\n```\n", "swift cannot be run"),
        ("<!-- not run -->\n```swift\nlet x = 1\n```\n", "needs a reason"),
        ("<!-- skipped: because I say so -->\n```sh\nmake\n```\n", "'skipped' is none of"),
        ("<!-- parsed: takes too long -->\n```python\nx\n```\n", "only commands can be parsed"),
        ("```text\nedge-deeplab models\n```\n", "a command in a text block"),
        ("```sh\nedge-deeplab models\n", "a fence is open"),
    ],
)
def test_what_nobody_can_check_is_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(MarkerError, match=words):
        written(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("```sh\nedge-deeplab info nosuchmodel\nedge-deeplab models\n```\n", "no model"),
        ("```sh\npip install 'edge-deeplab[nonsense]'\n```\n", "nonsense"),
        ("```sh\npip install some-package-that-is-not-there\n```\n", "exit status"),
        ("```python\nfrom edge_deeplab.runtimes import open_modell\n```\n", "ImportError"),
        ("```python\nimport warnings\nwarnings.warn('old', DeprecationWarning)\n```\n", "old"),
        ("```yaml\nlearning_rate: 1\n```\n", "learning_rate"),
        ("```json\n{1: 2}\n```\n", "no JSON"),
        ("<!-- parsed: for hours -->\n```sh\nedge-deeplab train --epocs 3\n```\n", "--epocs"),
        ("<!-- parsed: so slow -->\n```sh\nedge-deeplab export --target onnx --dla 0\n```\n", "no effect"),
        ("<!-- parsed: for hours -->\n```sh\nssh x edge-deeplab bench --nonsense\n```\n", "--nonsense"),
        ("<!-- parsed: so slow -->\n```sh\npython benchmarks/harness.py --bussy\n```\n", "no option --bussy"),
        ("<!-- parsed: for minutes -->\n```sh\nmake all\n```\n", "only run"),
        ("<!-- started: it serves -->\n```sh\nedge-deeplab models\n```\n", "nothing in it serves"),
        ("<!-- started: it does -->\n```sh\necho http://x; trap 'exit 3' INT; sleep 9\n```\n", "status 3"),
    ],
)  # fmt: skip
def test_a_document_that_is_wrong_is_found_out(tmp_path: Path, made: Install, text: str, words: str) -> None:
    (block,) = written(tmp_path, text)
    folder = made.checkout if "benchmarks/" in text else tmp_path
    (made.folder / "work").mkdir(exist_ok=True)
    with pytest.raises(Broken, match=words):
        check_block(block, made, folder)
