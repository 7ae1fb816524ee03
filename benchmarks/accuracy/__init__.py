"""Does text guidance add accuracy? The experiment: one matrix of arms × paired seeds, one report.

    python -m benchmarks.accuracy run --budget small --data CAMVID --text camvid.npy --init idd.pt
    python -m benchmarks.accuracy report --budget small

From the repository's root. `run` is resumable and may be started several times at once: processes
share the matrix. Modules, in reading order: `plan` (arms and budgets, as data), `schedule` (who
does what, when), `runner` (one run), `results` (what a run leaves); then `statistics`, `tables`,
`text_geometry`, `published`, `figures`, `panels` and `report`.
"""
