"""The runner of the documentation's blocks fails where a reader would."""

from __future__ import annotations

import traceback
from pathlib import Path

import pytest
from tests.docs.blocks import blocks
from tests.docs.pages import Page
from tests.docs.stand_ins import shrunk


def page(folder: Path, text: str) -> Page:
    (folder / "page.md").write_text(text)
    (folder / "run").mkdir()
    return Page(folder / "page.md", folder / "run", folder)


def test_what_comments_say(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(
        "<!-- not run: no\n  camera -->\n```sh\na\n```\n\n<!-- needs: ray -->\n```python\nb\n```\n"
        "\ntext\n\n    indented\n\n- in a list\n\n  ```toml\n  # c/d.toml\n  ```\n"
    )
    found = blocks(tmp_path / "page.md")
    assert [block.language for block in found] == ["sh", "python", "", "toml"]
    assert [block.not_run for block in found] == ["no camera", "", "", ""]
    assert [block.needs for block in found] == ["", "ray", "", ""]
    assert [block.line for block in found] == [4, 9, 14, 19]
    assert found[3].file == "c/d.toml"


def test_blocks_run_in_order_in_one_folder(tmp_path: Path) -> None:
    run = page(
        tmp_path,
        "```python\n# f/a.py\nprint('from a file')\n```\n```sh\npython f/a.py > b\n```\n"
        "```python\nc = open('b').read()\n```\n```python\nassert c == 'from a file\\n'\n```\n",
    )
    run.run(blocks(tmp_path / "page.md")[-1])  # those before it, too
    assert sorted(path.name for path in run.folder.iterdir() if path.name[0] != ".") == ["b", "f"]


@pytest.mark.parametrize(
    ("language", "code", "said"),
    [
        ("python", "1 / 0", "ZeroDivisionError"),
        ("python", "# a.py\n1 +", "SyntaxError"),
        ("sh", "true\nfalse | true\ntrue", "ended with 1"),
        ("sh", "edgeseg info nowhere.edgeseg  # a comment", "there is no engine file"),
        ("sh", "edgeseg info --nonsense", "ended with 2"),
        ("toml", "a = ", "TOMLDecodeError"),
        ("json", "{", "JSONDecodeError"),
        ("cpp", "int a = nothing;", "nothing"),
    ],
)
def test_a_bad_block_fails(tmp_path: Path, language: str, code: str, said: str) -> None:
    run = page(tmp_path, f"text\n```{language}\n{code}\n```\n```python\npass\n```\n")
    bad, good = blocks(tmp_path / "page.md")
    with pytest.raises(Exception) as error:  # noqa: PT011 - whatever it raises
        run.run(bad)
    assert said in "".join(traceback.format_exception(error.value))
    with pytest.raises(pytest.skip.Exception, match="failed before it"):
        run.run(good)


def test_a_traceback_tells_the_line_of_the_page(tmp_path: Path) -> None:
    run = page(tmp_path, "one\n\n```python\nfine = 1\n1 / 0\n```\n")
    with pytest.raises(ZeroDivisionError) as error:
        run.run(blocks(tmp_path / "page.md")[0])
    assert traceback.extract_tb(error.tb)[-1].lineno == 5


def test_what_is_endless_is_interrupted(tmp_path: Path) -> None:
    text = "<!-- until interrupted -->\n```sh\n{}\n```\n"
    run = page(tmp_path, text.format("python -c 'import time; time.sleep(60)'"))
    run.run(blocks(tmp_path / "page.md")[0])
    run.close()


def test_what_should_be_endless_and_ends_is_told(tmp_path: Path) -> None:
    run = page(
        tmp_path,
        "<!-- until interrupted -->\n```sh\necho no port\n```\n```sh\nsleep 1\n```\n",
    )
    run.run(blocks(tmp_path / "page.md")[1])
    with pytest.raises(AssertionError, match="no port"):
        run.close()


def test_pages_are_made_small() -> None:
    line = "edgeseg bench a.edgeseg  # slow"
    assert shrunk(line) == "edgeseg bench a.edgeseg   --seconds 0.2 # slow"
    assert shrunk("pip install 'a[b]'\nedgeseg info") == "true\nedgeseg info"
