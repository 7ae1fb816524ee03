"""Runs the code blocks of one page in order, as a reader would, in a folder of the page's own.

Python blocks share one namespace. Of a shell block, lines that are nothing but an `edgeseg` command
run in a fork of a process that has its imports behind it (seconds each, otherwise); the others are
bash's.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import re
import shlex
import signal
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest
from tests.docs.blocks import ROOT, Block, blocks
from tests.docs.stand_ins import STAND_INS, shrunk

COMMAND_SECONDS = 280  # less than pytest-timeout's, so that what was said until then is shown
_SHELL = re.compile(r"[|&;<>$`*]")

forks = multiprocessing.get_context("forkserver")
forks.set_forkserver_preload(
    ["edgeseg.cli", "edgeseg.train", "edgeseg.export.engine", "torch.export", "onnxscript"]
)


class Page:
    """One page, and how far it has been run.

    Args:
        path: the Markdown file.
        folder: empty folder to run it in.
        stand_ins: folder of what was made for earlier pages.
    """

    def __init__(self, path: Path, folder: Path, stand_ins: Path) -> None:
        self.path = path
        self.folder = folder
        self._left = blocks(path)
        self._said = folder / ".said"  # what the last command printed
        self._names: dict[str, object] = {"__name__": "__main__"}
        self._endless: list[tuple[subprocess.Popen[bytes], Path]] = []
        self._broken: Block | None = None
        text = shrunk(path.read_text("utf-8"))
        for name, make in STAND_INS.items():
            if re.search(rf"(?<![\w/]){re.escape(name)}(?!\w)", text):
                kept = stand_ins / name
                if not kept.exists():
                    make(kept)
                (folder / name).symlink_to(kept)

    def run(self, block: Block) -> None:
        """Run the page up to and with this block."""
        if self._broken is not None:
            pytest.skip(f"{self._broken} failed before it")
        while block in self._left:
            self._broken = self._left.pop(0)
            if runs(self._broken):
                self._run(self._broken)
            self._broken = None

    def close(self) -> None:
        """Interrupt what runs until then, and see that it did and that it ends."""
        ended = [said.read_text() for process, said in self._endless if process.poll() is not None]
        for process, _ in self._endless:
            process.send_signal(signal.SIGINT)
        for process, _ in self._endless:
            process.wait(60)
        assert not ended, f"ended by itself:\n{ended[0]}"

    def _run(self, block: Block) -> None:
        joined = block.code.replace("\\\n", " ") if block.language == "sh" else block.code
        code = shrunk(joined)
        if block.file is not None:
            target = self.folder / block.file
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(code)
        match block.language:
            case "python" if block.file is not None:
                compile(code, str(block), "exec")  # a later command runs it
            case "python":
                # As many lines before it as in the page, so that tracebacks tell the right one.
                lines = "\n" * (block.line - 1) + code
                with contextlib.chdir(self.folder):
                    exec(compile(lines, str(block.page), "exec"), self._names)
            case "sh" if block.endless:
                said = self.folder / f".said-{block.line}"
                self._endless.append((self._start(f"exec {code}", said), said))
            case "sh":
                self._shell(code)
            case "toml":
                tomllib.loads(code)
            case "json":
                json.loads(code)
            case "cpp":
                _compile_cpp(code)

    def _shell(self, code: str) -> None:
        if "<<" in code:  # a file between the lines
            self._bash(code)
            return
        script: list[str] = []  # consecutive lines for bash
        for line in code.splitlines():
            if line.startswith("edgeseg ") and not _SHELL.search(line.partition(" #")[0]):
                self._bash("\n".join(script))
                script = []
                self._edgeseg(shlex.split(line, comments=True))
            else:
                script.append(line)
        self._bash("\n".join(script))

    def _bash(self, script: str) -> None:
        if not script.strip():
            return
        process = self._start(script, self._said)
        try:
            process.wait(COMMAND_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
        self._check(script, process.wait())

    def _start(self, script: str, said: Path) -> subprocess.Popen[bytes]:
        environment = os.environ | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
        }
        # What runs in the background, as CI may, ignores Ctrl-C, and so would what it starts.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            with said.open("w") as file:
                return subprocess.Popen(
                    ["bash", "-euo", "pipefail", "-c", script],
                    cwd=self.folder,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # so that all that it starts can be ended
                )
        finally:
            signal.signal(signal.SIGINT, before)

    def _edgeseg(self, words: list[str]) -> None:
        process = forks.Process(target=_command, args=(words, self.folder, self._said))
        process.start()
        process.join(COMMAND_SECONDS)
        if process.exitcode is None:
            process.kill()
            process.join()
        self._check(shlex.join(words), process.exitcode)

    def _check(self, command: str, code: int | None) -> None:
        assert code == 0, f"{command}\nended with {code}:\n{self._said.read_text()}"


def runs(block: Block) -> bool:
    """Whether a block can be run here."""
    return not block.not_run and (not block.needs or find_spec(block.needs) is not None)


def _command(words: list[str], folder: Path, said: Path) -> None:
    """What the `edgeseg` script does, its output in a file."""
    os.chdir(folder)
    with said.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.argv = words
    from edgeseg.cli import main

    main()


def _compile_cpp(code: str) -> None:
    """A whole file as it is; statements in a function of the header's."""
    if "#include" not in code:
        code = f'#include "edgeseg/kernels.h"\nvoid block() {{\n{code}}}\n'
    include = ROOT / "csrc" / "include"
    command = ["c++", "-std=c++17", "-fsyntax-only", "-Wall", "-I", str(include), "-x", "c++", "-"]
    done = subprocess.run(command, input=code, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
