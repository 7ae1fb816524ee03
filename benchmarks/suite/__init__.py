"""Frame to labels on a CPU: edgeseg beside other tools, with the same weights, in one run.

    python -m benchmarks.suite run             # half an hour or so on an idle machine
    python -m benchmarks.suite run --only kernels,streams    # these parts, beside the stored others
    python -m benchmarks.suite report          # benchmarks/results/suite.md and figures, from JSON
    python -m benchmarks.suite instructions    # of the kernels, per pixel; on a busy machine, too

From the repository's root, with `pip install '.[export,benchmarks,peers]'`. Labels are compared
before any clock starts; contenders take turns, so that a noisy machine disturbs all of them alike;
a missing tool is named and left out. Parts of several runs stand in one file only if they are of
the same machine, commit, versions, threads and picture. Modules, in reading order: `networks`
(what runs), `peers` (who runs it), `paths`, `kernels` and `streams` (what is timed), `counts`
(what it must cost), `run` (all of it), `results` (what is kept), `verdict` (what was promised),
`report`, `figures`; `instructions` beside them.
"""
