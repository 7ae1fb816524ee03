"""Everything that is claimed of NVIDIA GPUs, measured by one command on the machine that has one.

    python -m benchmarks.gpu                        # all parts
    python -m benchmarks.gpu --only kernels,paper   # some; the others of the file are kept
    python -m benchmarks.gpu report                 # Markdown of the file again

From the repository's root. It builds the kernels for the GPU if need be, checks what it times,
prints tables and writes `benchmarks/results/gpu_<name>.json`. What is not installed is named and
left out. The GPU's clocks and settings are read, never set.

Modules, in reading order: `counts` (bytes and operations), `clocks`, `device`, `machine`
(what is here, what it reaches), `correctness` (tests, compute-sanitizer); `kernels`; `bare`,
`contenders` and `engines`; `frames` (the Runtime); then `results` and `report`.
"""
