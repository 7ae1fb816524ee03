"""Frames from files, folders, cameras and streams; frames into MP4 files."""

from edgeseg.video.live import LiveSource
from edgeseg.video.opening import RECONNECT, TIMEOUT, Source, open_source
from edgeseg.video.prefetching import prefetch
from edgeseg.video.recorded import ImageSource, SourceFrame, VideoSource
from edgeseg.video.writing import VideoWriter, write_video

__all__ = [
    "RECONNECT",
    "TIMEOUT",
    "ImageSource",
    "LiveSource",
    "Source",
    "SourceFrame",
    "VideoSource",
    "VideoWriter",
    "open_source",
    "prefetch",
    "write_video",
]
