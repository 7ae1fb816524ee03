"""Fuzz the native kernels under the address and undefined-behaviour sanitizers.

    python -m tests.fuzz.kernels --seconds 60

With clang++ libFuzzer follows the coverage; with g++ a driver makes inputs from a seed, at every
dispatch level.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz import native
from tests.fuzz.fuzzing import FOUND


def main() -> None:
    parser = argparse.ArgumentParser(description="Fuzz the native kernels.")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plain", action="store_true", help="without libFuzzer")
    options = parser.parse_args()
    clang = None if options.plain else native.clang()
    with tempfile.TemporaryDirectory(prefix="edgeseg-fuzz-") as folder:
        program = Path(folder, "kernels")
        begun = time.monotonic()
        try:
            if clang is None:
                native.build(program, "address,undefined", [native.DRIVER])
                command = [program, 1, 1 << 40, options.seed, options.seconds]
                done = native.run(list(map(str, command)))
                print(f"kernels, from a seed: {done.stdout.strip()}, 0 findings")
            else:
                native.build(program, "fuzzer,address,undefined", cxx=clang)
                FOUND.mkdir(exist_ok=True)
                corpus = Path(folder, "corpus")
                corpus.mkdir()
                command = [program, f"-max_total_time={options.seconds:.0f}", "-max_len=2000"]
                command += [f"-seed={options.seed + 1}", "-print_final_stats=1", "-timeout=60"]
                done = native.run([*map(str, command), f"-artifact_prefix={FOUND}/", str(corpus)])
                executions = re.search(r"number_of_executed_units: (\d+)", done.stderr)
                coverage = re.findall(r"cov: (\d+) ft: (\d+)", done.stderr)[-1]
                print(
                    f"kernels, guided by coverage: {executions and executions[1]} executions, "
                    f"{len(list(corpus.iterdir()))} inputs kept for {coverage[0]} edges and "
                    f"{coverage[1]} features, 0 findings"
                )
        except RuntimeError as error:
            print(f"FOUND {error}")
            sys.exit(1)
        print(f"{time.monotonic() - begun:.0f} s with building")


if __name__ == "__main__":
    main()
