"""Does text guidance add accuracy? The experiment: one matrix of arms × paired seeds, one report.

    python -m benchmarks.accuracy run --budget small --data CAMVID --text camvid.npy --init start.pt
    python -m benchmarks.accuracy report --budget small

The start of the published run is a plain network: `idd-lite-cpu`, then

    edgeseg train camvid-cpu --iterations 1200 --init idd.pt --set text_guidance=null
        --set synthetic=200 --set class_balance=0.5 --set augmentation.base=[180,240]
        --set augmentation.crop=[176,240] --set augmentation.scales=[0.75,1.5]
        --set eval_size=[180,240]

From the repository's root. `run` is resumable and may be started several times at once: processes
share the matrix. Modules, in reading order: `plan` (arms and budgets, as data), `schedule` (who
does what, when), `runner` (one run), `results` (what a run leaves); then `statistics`, `tables`,
`text_geometry`, `published`, `figures`, `panels` and `report`.
"""
