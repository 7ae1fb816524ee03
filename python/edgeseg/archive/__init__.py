"""Label an archive of drives on many machines with Ray Data: `edgeseg label`.

`inputs` finds what there is to label, `record` keeps what was labelled, `worker` labels,
`label` brings them together. Ray is imported inside `label` only.
"""

from edgeseg.archive.label import ArchiveReport, Failure, Progress, label_archive

__all__ = ["ArchiveReport", "Failure", "Progress", "label_archive"]
