"""The command line: from a training to an engine file, and from frames to labels.

Exit codes: 0 done; 1 an error, named in one sentence; 2 wrong usage; 3 `verify` found a difference;
4 `label` passed over inputs that cannot be labelled; 130 interrupted.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import cv2
import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

from edgeseg import _core
from edgeseg.arguments import check_threads
from edgeseg.classes import CLASS_TABLES, ClassTable
from edgeseg.engine_file import (
    FloatType,
    FloatWeights,
    Manifest,
    Quantization,
    Resize,
    Target,
    TargetKind,
    open_engine,
)
from edgeseg.errors import (
    ConfigError,
    EdgesegError,
    InputError,
    MissingDependencyError,
    printable,
)
from edgeseg.evaluate import (
    BOUNDARY_TOLERANCE,
    Scores,
    Views,
    Window,
    describe_checkpoint,
    evaluate_checkpoint,
    evaluate_runtime,
    evaluation_size,
)
from edgeseg.evaluate.picture import check_picture_path, write_confusion
from edgeseg.export.tensorrt import PlanPrecision, build_engine
from edgeseg.files import write_atomically
from edgeseg.outputs import Outputs
from edgeseg.predict import Report, predict_source
from edgeseg.runtime import Runtime, packaged_engine
from edgeseg.runtime import verify as verify_engine
from edgeseg.runtime.result import Picture
from edgeseg.runtime.runtime import Precision
from edgeseg.tensorrt_library import PlanKind
from edgeseg.video import RECONNECT, TIMEOUT

if TYPE_CHECKING:
    from edgeseg.archive import ArchiveReport
    from edgeseg.bench import BenchReport

app = typer.Typer(
    name="edgeseg",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console()
diagnostics = Console(stderr=True)

Engine = Annotated[
    Path | None, typer.Option("--engine", "-e", help="Engine file; default: the packaged one.")
]
Threads = Annotated[int | None, typer.Option(help="CPU threads; default: all.")]
Classes = Annotated[
    str | None,
    typer.Option(help="road,car,person or a known set's name; default: what the folder tells."),
]
Numbers = Annotated[Precision, typer.Option("--precision", help="Number format of the inference.")]
OnDevice = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")]
Trust = Annotated[
    bool, typer.Option("--trust", help="Run native code in the engine that was made elsewhere.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


def main() -> None:
    """Run the command line; errors of edgeseg become one line and exit code 1."""
    logger = logging.getLogger("edgeseg")
    logger.addHandler(RichHandler(console=diagnostics, show_time=False, show_path=False))
    logger.setLevel(logging.WARNING)  # every command says itself what ran
    # What is wrong with a picture or video has our sentence.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    # A stream that hangs while it is opened is not to keep the clip of it from being read back.
    os.environ.setdefault("OPENCV_FFMPEG_IS_THREAD_SAFE", "1")
    if "OPENCV_LOG_LEVEL" not in os.environ:
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        app()
    except EdgesegError as error:
        diagnostics.print(f"[red]error:[/red] {escape(str(error))}", soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        diagnostics.print("interrupted")
        sys.exit(130)


@app.callback(invoke_without_command=True)
def version(
    show: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Real-time semantic segmentation: one engine file, any machine."""
    if show:
        _print_line(f"edgeseg {_core.__version__}")
        raise typer.Exit


# -------------------------------------------------------------------------------------- running


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.")] = Path(
        "edgeseg-demo"
    ),
    engine: Engine = None,
    seconds: Annotated[float, typer.Option(min=0.2, help="Length of the clip.")] = 4.0,
    seed: Annotated[int, typer.Option(min=0, help="Which street.")] = 7,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Drive down a synthetic street, segment it, and show the result and the times."""
    from edgeseg.demo import run_demo

    with _progress() as advance:
        report = run_demo(out, engine, seconds, seed, threads, advance)
    _print_report(report, as_json)


@app.command()
def predict(
    source: Annotated[
        str, typer.Argument(help="Image, folder of images, video file, camera index or URL.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.")] = Path(
        "edgeseg-out"
    ),
    engine: Engine = None,
    overlay: Annotated[bool, typer.Option(help="Write colours blended over the frame.")] = True,
    side_by_side: Annotated[
        bool, typer.Option("--side-by-side", help="Write the frame beside the overlay.")
    ] = False,
    colored: Annotated[bool, typer.Option("--colored", help="Write colours alone.")] = False,
    labels: Annotated[bool, typer.Option("--labels", help="Write class ids as grey PNGs.")] = False,
    alpha: Annotated[float, typer.Option(min=0, max=1, help="Weight of the colours.")] = 0.5,
    legend: Annotated[
        bool, typer.Option("--legend", help="Add colours, names and areas below the pictures.")
    ] = False,
    geojson: Annotated[
        bool, typer.Option("--geojson", help="Write the outlines of parts, a file per frame.")
    ] = False,
    coco: Annotated[
        bool, typer.Option("--coco", help="Write a COCO data set, one file for all frames.")
    ] = False,
    min_area: Annotated[
        float, typer.Option(min=0, help="GeoJSON, COCO: fewest pixels of a part.")
    ] = 0.0,
    simplify: Annotated[
        float, typer.Option(min=0, help="GeoJSON, COCO: move outlines by so many pixels.")
    ] = 0.0,
    only: Annotated[
        str | None, typer.Option(help="Classes to write, road,car; default: all.")
    ] = None,
    min_confidence: Annotated[
        float | None, typer.Option(min=0, max=1, help="Write what is at least so sure.")
    ] = None,
    smooth: Annotated[
        int,
        typer.Option(min=1, max=250, help="Frames that an unsure label must stay; video: 3."),
    ] = 1,
    limit: Annotated[int | None, typer.Option(min=1, help="Stop after so many frames.")] = None,
    latest: Annotated[
        bool, typer.Option("--latest", help="Pass over frames that come while others are in work.")
    ] = False,
    reconnect: Annotated[
        float,
        typer.Option(min=0, help="Seconds to try to get a lost camera or stream back; 0, inf."),
    ] = RECONNECT,
    timeout: Annotated[
        float, typer.Option(min=0.1, help="Seconds without a frame that lose a camera or stream.")
    ] = TIMEOUT,
    precision: Numbers = "auto",
    device: OnDevice = "auto",
    trust: Trust = False,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Segment images or video; pictures become pictures, a video becomes a clip.

    Ctrl-C ends a camera or stream well: the clip is finished, the times are printed.
    """
    wanted: dict[Picture, bool] = {
        "overlay": overlay,
        "side-by-side": side_by_side,
        "colored": colored,
        "labels": labels,
    }
    outputs = Outputs(
        pictures=tuple(picture for picture, asked in wanted.items() if asked),
        alpha=alpha,
        legend=legend,
        geojson=geojson,
        coco=coco,
        min_area=min_area,
        simplify=simplify,
    )
    with _progress() as advance:
        report = predict_source(
            Runtime(engine, device, threads, precision=precision, trust=trust),
            _source(source),
            out,
            outputs,
            only=() if only is None else [name.strip() for name in only.split(",")],
            min_confidence=min_confidence,
            smoothing=smooth,
            limit=limit,
            latest=latest,
            reconnect=reconnect,
            timeout=timeout,
            on_frame=advance,
        )
    _print_report(report, as_json)


@app.command()
def label(
    archive: Annotated[Path, typer.Argument(help="Folder of images and videos, and below it.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the labels.")],
    engine: Engine = None,
    address: Annotated[
        str | None, typer.Option(help="Of a Ray cluster, HOST:PORT; default: this machine alone.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="How many; default: as many as there is room for.")
    ] = None,
    threads: Annotated[int, typer.Option(help="CPU threads of each worker.")] = 2,
    gpus: Annotated[float, typer.Option(min=0, help="GPUs of each worker; 0 is the CPU.")] = 0,
    redo: Annotated[
        bool, typer.Option("--redo", help="Label again what changed since, and what failed.")
    ] = False,
    precision: Numbers = "auto",
    trust: Trust = False,
    as_json: Json = False,
) -> None:
    """Label an archive of drives, on one machine or many; again, and it does what is missing."""
    from edgeseg.archive import label_archive

    with _progress("labelling") as advance:
        report = label_archive(
            archive,
            out,
            engine,
            address=address,
            workers=workers,
            threads=threads,
            gpus=gpus,
            precision=precision,
            trust=trust,
            redo=redo,
            on_progress=lambda progress: advance(progress.pieces, progress.of),
        )
    _print_archive(report, as_json)
    if report.failed:
        raise typer.Exit(4)


@app.command()
def serve(
    source: Annotated[
        str | None,
        typer.Argument(help="What to show live, as for predict; default: pictures dropped in."),
    ] = None,
    engine: Engine = None,
    host: Annotated[
        str, typer.Option(help="Address to listen at; 0.0.0.0 is all, for others to see.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 8000,
    max_megapixels: Annotated[
        float, typer.Option(min=0.001, max=500, help="Largest picture that is taken.")
    ] = 25.0,
    max_body: Annotated[
        float, typer.Option(min=0.001, max=500, help="Largest file that is taken, in MB.")
    ] = 16.0,
    timeout: Annotated[
        float,
        typer.Option(min=0.1, max=600, help="Seconds for a picture to come, and be labelled."),
    ] = 10.0,
    precision: Numbers = "auto",
    device: OnDevice = "auto",
    trust: Trust = False,
    threads: Threads = None,
) -> None:
    """Show a source live in the browser, and label pictures by HTTP."""
    require("serve", "starlette", "uvicorn", "PIL")
    from edgeseg.serve import Limits, serve_until_interrupted

    serve_until_interrupted(
        lambda: Runtime(engine, device, threads, precision=precision, trust=trust),
        None if source is None else _source(source),
        host=host,
        port=port,
        limits=Limits(max_megapixels, max_body, timeout),
        say=_print_line,
    )


# ------------------------------------------------------------------------ training and engines


@app.command()
def train(
    preset: Annotated[str, typer.Argument(help="Recipe; an unknown one lists those there are.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the run.")],
    data: Annotated[
        list[Path] | None,
        typer.Option(help="Folder with train/ and val/; later ones replace images by name."),
    ] = None,
    classes: Classes = None,
    max_side: Annotated[
        int | None,
        typer.Option(min=32, help="Decode training images smaller: pixels of the longer side."),
    ] = None,
    text: Annotated[Path | None, typer.Option(help="Text embeddings, NAME.npy.")] = None,
    encoder: Annotated[
        str | None, typer.Option(help="Text encoder, for recipes that learn contexts.")
    ] = None,
    encoder_weights: Annotated[
        Path | None, typer.Option(help="The encoder's weights, instead of a download.")
    ] = None,
    init: Annotated[Path | None, typer.Option(help="Checkpoint to start from.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's last.pt.")] = False,
    size: Annotated[
        str | None, typer.Option(help="WIDTHxHEIGHT of crops and of the validated network.")
    ] = None,
    iterations: Annotated[int | None, typer.Option(help="Instead of the recipe's.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="FIELD=VALUE of the recipe; augmentation.scales=[0.5,2]."),
    ] = None,
    accelerator: Annotated[
        Literal["auto", "cpu", "cuda"], typer.Option(help="What to train on.")
    ] = "auto",
    devices: Annotated[int, typer.Option(min=1, help="Devices or processes to share.")] = 1,
    nodes: Annotated[int, typer.Option(min=1, help="Machines that train together.")] = 1,
    threads: Threads = None,
) -> None:
    """Train a network; leaves best.pt, last.pt and TensorBoard curves."""
    require("train", "torch", "lightning", "tensorboard")
    import torch

    from edgeseg import train as training
    from edgeseg.checkpoint import load_checkpoint
    from edgeseg.recipes import PRESETS
    from edgeseg.text import TextEmbeddings
    from edgeseg.text_encoder import load_text_encoder

    if preset not in PRESETS:
        raise ConfigError(f"no recipe {preset!r}; there are {', '.join(PRESETS)}")
    config = PRESETS[preset]
    if size is not None:
        width, height = _size(size)
        crops = replace(config.augmentation, base=(height, width), crop=(height, width))
        config = replace(config, augmentation=crops, eval_size=(height, width))
    if iterations is not None:
        config = replace(config, iterations=iterations, warmup=min(config.warmup, iterations // 10))
    config = config.updated(settings or [])
    training.check_run_folder(out, resume=resume)
    if threads is not None:
        torch.set_num_threads(check_threads(threads))
    table = None if text is None else TextEmbeddings.load(text)
    text_encoder = None if encoder is None else load_text_encoder(encoder, encoder_weights)
    start = None if init is None else load_checkpoint(init)
    with _progress("decoding images") as advance:
        images, validation = training.load_data(
            config, data or [], _class_table(classes), max_side=max_side, progress=advance
        )
    training.train(
        config,
        data=images,
        validation=validation,
        output=out,
        text=table,
        text_encoder=text_encoder,
        init=start,
        resume=resume,
        accelerator=accelerator,
        devices=devices,
        nodes=nodes,
        console=console,
    )


@app.command()
def evaluate(
    data: Annotated[Path, typer.Argument(help="Folder of the data set, as for training.")],
    engine: Engine = None,
    checkpoint: Annotated[
        Path | None, typer.Option("--checkpoint", "-c", help="Of a training; instead of an engine.")
    ] = None,
    split: Annotated[str, typer.Option(help="Which part of the data.")] = "val",
    classes: Classes = None,
    size: Annotated[
        str | None,
        typer.Option(help="Network input, WIDTHxHEIGHT; default: as training evaluated."),
    ] = None,
    sliding: Annotated[
        str | None,
        typer.Option(help="Slide a window WIDTHxHEIGHT; logits are averaged at overlaps."),
    ] = None,
    stride: Annotated[
        str | None,
        typer.Option(help="Steps of the window, WIDTHxHEIGHT; default: two thirds of it."),
    ] = None,
    scales: Annotated[
        str, typer.Option(help="Average the probabilities at these scales, e.g. 0.5,1,1.5.")
    ] = "1",
    flip: Annotated[
        bool, typer.Option("--flip", help="Average the probabilities with the mirrored image's.")
    ] = False,
    confusion: Annotated[
        Path | None, typer.Option(help="Draw the confusion matrix: .png, .pdf or .svg.")
    ] = None,
    precision: Numbers = "auto",
    device: OnDevice = "auto",
    trust: Trust = False,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Score an engine as it is shipped, or a checkpoint: IoU, accuracy, boundary F.

    --size, --sliding, --stride, --scales and --flip are for a checkpoint; --precision, --device and
    --trust are for an engine.
    """
    views = _views(sliding, stride, scales, flip)
    if checkpoint is None and (size is not None or views != Views()):
        raise InputError(
            "an engine is measured as it is shipped, frame in, labels out; --size, --sliding, "
            "--stride, --scales and --flip need a --checkpoint"
        )
    if checkpoint is not None and engine is not None:
        raise InputError("--engine and --checkpoint are both given; score one, then the other")
    if checkpoint is not None and (precision != "auto" or device != "auto" or trust):
        raise InputError(
            "a checkpoint is scored in float32 by PyTorch; --precision, --device and --trust are "
            "for an engine"
        )
    if confusion is not None:
        require("train", "matplotlib")
        check_picture_path(confusion)
    require("train", "torch")
    import torch

    from edgeseg.checkpoint import load_checkpoint
    from edgeseg.data import load_images

    options: dict[str, object] = {"boundary_tolerance": BOUNDARY_TOLERANCE}
    if checkpoint is None:
        runtime = Runtime(engine, device, threads, precision=precision, trust=trust)
        table = _class_table(classes)
        if table is None and engine is not None:  # nobody says that data has the packaged classes
            table = _model_table(runtime.classes, runtime.manifest.palette)
        images = load_images(data, split, table)
        described = {"runtime": repr(runtime)}
        with _progress() as advance:
            scores = evaluate_runtime(runtime, images, boundary=True, on_image=advance)
    else:
        if threads is not None:
            torch.set_num_threads(check_threads(threads))
        saved = load_checkpoint(checkpoint)
        width, height = evaluation_size(saved)[::-1] if size is None else _size(size)
        table = _class_table(classes) or _model_table(saved.classes.names, saved.classes.palette)
        images = load_images(data, split, table)
        at = f"input {width}×{height}"
        described = {"checkpoint": f"{checkpoint}: {describe_checkpoint(saved)}; {at}"}
        options |= {"size": f"{width}x{height}", "scales": views.scales, "flip": views.flip}
        if views.window is not None:
            rows, columns = zip(views.window.size, views.window.stride, strict=True)
            options |= {"sliding": f"{columns[0]}x{rows[0]}", "stride": f"{columns[1]}x{rows[1]}"}
        with _progress() as advance:
            scores = evaluate_checkpoint(
                saved, images, (height, width), views=views, boundary=True, on_image=advance
            )
    if confusion is not None:
        write_confusion(confusion, scores)
    if as_json:
        about = {"data": str(data), "split": split, "images": len(images), "options": options}
        _print_json(described | about | scores.summary())
        return
    _print_line(*described.values())
    _print_scores(scores, len(images))
    if confusion is not None:
        _print_line(f"wrote {confusion}")


@app.command()
def text(
    out: Annotated[Path, typer.Option("--out", "-o", help="Table to write, NAME.npy.")],
    classes: Annotated[
        list[str] | None, typer.Argument(help="Class names, in the order of their ids.")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="Name of a known set, instead of class names.")
    ] = None,
    encoder: Annotated[
        str, typer.Option(help="clip-rn50, or minilm: a sentence encoder, not CLIP.")
    ] = "clip-rn50",
    weights: Annotated[
        Path | None,
        typer.Option(help="Local file (clip-rn50) or folder (minilm) instead of the usual source."),
    ] = None,
    template: Annotated[
        list[str] | None,
        typer.Option(
            help="Text with {} for the name; several make an ensemble. Default: bare name."
        ),
    ] = None,
) -> None:
    """Make the table of text embeddings that training is guided by."""
    require("train", "torch")
    from edgeseg.text_encoder import embed_classes, load_text_encoder

    if bool(classes) == bool(dataset):
        raise InputError("expected either class names or --dataset; give one of the two")
    # Commas separate, too, as in --classes of the other commands.
    named = [name.strip() for words in classes or () for name in words.split(",")]
    names = _known_table(dataset).names if dataset else tuple(named)
    table = embed_classes(load_text_encoder(encoder, weights), names, template or ["{}"])
    table.save(out)
    _print_line(f"wrote {out}: {', '.join(names)} by {table.provenance}")


@app.command()
def convert(
    weights: Annotated[Path, typer.Argument(help="STDC-Seg's or mmsegmentation's checkpoint.")],
    out: Annotated[Path, typer.Argument(help="Checkpoint to write.")],
    dataset: Annotated[str, typer.Option(help="What a whole network was trained on.")] = (
        "cityscapes"
    ),
    backbone: Annotated[
        Literal["stdc1", "stdc2"] | None,
        typer.Option(help="stdc1 or stdc2: the file is an ImageNet backbone, for 'train --init'."),
    ] = None,
) -> None:
    """Make a checkpoint of weights that others trained: a network to export, or a start."""
    require("export", "torch")
    from edgeseg.checkpoint import convert_backbone, convert_pretrained, save_checkpoint

    if backbone is None:
        checkpoint = convert_pretrained(weights, _known_table(dataset))
    else:
        checkpoint = convert_backbone(weights, backbone)
    save_checkpoint(out, checkpoint)
    _print_line(f"wrote {out}")


@app.command()
def export(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint from training.")],
    out: Annotated[Path, typer.Argument(help="Engine file to write, NAME.edgeseg.")],
    size: Annotated[str, typer.Option(help="Network input, WIDTHxHEIGHT.")] = "960x720",
    target: Annotated[
        list[str] | None,
        typer.Option(
            help="Form to store beside ONNX: openvino (loads faster on CPUs), aoti or tensorrt "
            "(compiled for this machine); may be given several times."
        ),
    ] = None,
    weights: Annotated[
        FloatWeights, typer.Option(help="Format of the stored weights.")
    ] = "float16",
    precision: Annotated[
        FloatType,
        typer.Option(help="What aoti and tensorrt compute in; bfloat16: aoti only."),
    ] = "float16",
    device: Annotated[
        Literal["cuda", "cpu"], typer.Option(help="What aoti is compiled for.")
    ] = "cuda",
    score_map: Annotated[
        Literal["plugin", "native"],
        typer.Option(help="Score map in tensorrt: our kernel, or TensorRT's layers."),
    ] = "plugin",
    resize: Annotated[Resize, typer.Option(help="How a frame fills the input.")] = "stretch",
    name: Annotated[str, typer.Option(help="Name of the engine; default: the file's.")] = "",
    license_note: Annotated[
        str, typer.Option("--license", help="What may be done with the weights.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Make an engine file from a checkpoint and compare it with PyTorch."""
    require("export", "torch", "onnx", "onnxscript")
    from edgeseg.export import ExportConfig, TargetName, export_engine

    width, height = _size(size)
    with diagnostics.status("exporting and comparing with PyTorch"):
        manifest = export_engine(
            checkpoint,
            out,
            ExportConfig(
                height=height,
                width=width,
                targets=cast("tuple[TargetName, ...]", ("onnx", *(target or ()))),
                weights=weights,
                precision=precision,
                device=device,
                score_map=score_map,
                resize=resize,
                name=name,
                license=license_note,
            ),
        )
    _print_manifest(out, manifest, as_json)


@app.command()
def quantize(
    engine: Annotated[Path, typer.Argument(help="Engine file; the target is added in place.")],
    data: Annotated[Path, typer.Option(help="Folder of the data set, as for training.")],
    target: Annotated[
        Literal["openvino", "onnx"],
        typer.Option(help="openvino: for CPUs; onnx: what 'edgeseg build' makes INT8 plans of."),
    ] = "openvino",
    split: Annotated[str, typer.Option(help="Part of the data to calibrate on.")] = "train",
    frames: Annotated[
        int, typer.Option(min=1, help="How many of its frames, evenly spread.")
    ] = 150,
    validation: Annotated[
        str, typer.Option(help="Part of the data to measure mIoU on, or 'none'.")
    ] = "val",
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Add an INT8 target to an engine file, and measure what it costs.

    On CPUs "openvino" runs by itself where mIoU was measured and falls by 0.5 at most, else with
    --precision int8. "onnx" is for TensorRT: 'edgeseg build --precision int8' makes plans of it.
    """
    require("export", "nncf", "torch")
    from edgeseg.data import load_images
    from edgeseg.export import quantize_engine

    with open_engine(engine) as file:
        table = _model_table(file.manifest.classes, file.manifest.palette)
    with _progress("decoding images") as advance:
        images = load_images(data, split, table, limit=frames, progress=advance).images
        labelled = None
        if validation != "none":
            labelled = load_images(data, validation, table, progress=advance)
    manifest = quantize_engine(
        engine,
        [image.permute(1, 2, 0).numpy() for image in images],
        calibration=f"{data.name}, {split}",
        target=target,
        validation=labelled,
        validation_name="" if labelled is None else f"{data.name}, {validation}",
        threads=threads,
    )
    _print_manifest(engine, manifest, as_json)


@app.command()
def build(
    engine: Annotated[Path, typer.Argument(help="Engine file; the plan is added in place.")],
    target: Annotated[
        PlanKind,
        typer.Option(help="tensorrt: for the GPU here. tensorrt-rtx: needs no GPU to build."),
    ],
    precision: Annotated[
        PlanPrecision,
        typer.Option(help="What it computes in; auto: INT8 if measured to be harmless, float16."),
    ] = "auto",
    timing_cache: Annotated[
        Path | None,
        typer.Option(help="TensorRT's timings of earlier builds; default: in ~/.cache/edgeseg."),
    ] = None,
    optimization_level: Annotated[
        int, typer.Option(min=0, max=5, help="How long TensorRT searches.")
    ] = 3,
    capabilities: Annotated[
        str | None,
        typer.Option(
            "--for",
            help="tensorrt-rtx: compute capabilities, 8.6,8.9; default: the GPU here, or all.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Add a plan for GPUs to an engine file, and check it where there is one. No torch."""
    with _progress("building") as advance:
        manifest = build_engine(
            engine,
            target,
            precision=precision,
            capabilities=() if capabilities is None else tuple(capabilities.split(",")),
            timing_cache=timing_cache,
            optimization_level=optimization_level,
            progress=advance,
        )
    _print_manifest(engine, manifest, as_json)
    if not as_json and not manifest.targets[-1].agreement:
        _print_line(
            "the plan was not run: no GPU that it is for is here. A device loads what another "
            "machine built only with --trust, Runtime(trust=True)"
        )


@app.command()
def info(
    engine: Annotated[Path | None, typer.Argument(help="Default: the packaged engine.")] = None,
    as_json: Json = False,
) -> None:
    """Show what an engine file says of itself."""
    path = engine or packaged_engine()
    with open_engine(path) as file:
        _print_manifest(path, file.manifest, as_json)


@app.command()
def unpack(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write.")],
    engine: Annotated[Path | None, typer.Argument(help="Default: the packaged engine.")] = None,
    namespace: Annotated[
        str, typer.Option(help="C++ namespace of the constants in engine.h.")
    ] = "engine",
    as_json: Json = False,
) -> None:
    """Write an engine's networks, manifest and a C++ header into a folder, for C++ programs."""
    from edgeseg.unpack import unpack_engine

    unpacked = unpack_engine(engine or packaged_engine(), out, namespace=namespace)
    if as_json:
        _print_json({name: list(map(str, paths)) for name, paths in asdict(unpacked).items()})
        return
    for path in unpacked.written:
        _print_line(f"wrote {path}")
    for path in unpacked.native_code:
        _print_line(
            f"{path} is native code that was built elsewhere: load it only if you would run a "
            "program of its maker"
        )


@app.command()
def verify(
    engine: Annotated[Path | None, typer.Argument(help="Default: the packaged engine.")] = None,
    precision: Numbers = "auto",
    device: OnDevice = "auto",
    trust: Trust = False,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Check an engine file's hashes and run its golden sample on this machine."""
    verification = verify_engine(
        engine, device=device, threads=threads, precision=precision, trust=trust
    )
    if as_json:
        _print_json(asdict(verification))
    else:
        verdict = "[green]ok[/green]" if verification.ok else "[red]differs[/red]"
        console.print(
            f"{verdict}: {verification.parts} parts intact, {verification.agreement:.3%} of the "
            "golden sample's pixels as trained",
            soft_wrap=True,
        )
        _print_line(verification.runtime)
    if not verification.ok:
        raise typer.Exit(3)


@app.command()
def bench(
    engine: Annotated[Path | None, typer.Argument(help="Default: the packaged engine.")] = None,
    frame: Annotated[
        str | None,
        typer.Option(help="WIDTHxHEIGHT, a picture or a video; default: the network's size."),
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.01, max=3600, help="How long to measure.")] = 10.0,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Also write a page, .md.")] = None,
    precision: Numbers = "auto",
    device: OnDevice = "auto",
    trust: Trust = False,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Measure an engine here: the network alone, and from frame to labels, and how steady."""
    from edgeseg.bench import bench as measure
    from edgeseg.bench import markdown, read_frames

    frames = [] if frame is None else read_frames(frame)
    with diagnostics.status("measuring"):
        measured = measure(
            engine,
            frames=frames,
            device=device,
            seconds=seconds,
            threads=threads,
            precision=precision,
            trust=trust,
        )
    if out is not None:
        write_atomically(out, [markdown(measured).encode()])
    if as_json:
        _print_json(asdict(measured))
        return
    _print_bench(measured)
    if out is not None:
        _print_line(f"wrote {out}")


@app.command()
def doctor(as_json: Json = False) -> None:
    """Show what this installation has, and what is missing."""
    from edgeseg.doctor import examine

    findings = examine()
    if as_json:
        _print_json([asdict(finding) for finding in findings])
    else:
        marks = {
            "ok": "[green]ok[/green]",
            "absent": "[yellow]–[/yellow]",
            "broken": "[red]!![/red]",
        }
        table = Table(box=None, show_header=False, pad_edge=False)
        for finding in findings:
            table.add_row(marks[finding.state], finding.subject, escape(finding.detail))
        console.print(table)
        if any("edgeseg[" in finding.detail for finding in findings):
            _print_line("In the source folder, '.[gpu]' takes the place of 'edgeseg[gpu]'.")
    if any(finding.state == "broken" for finding in findings):
        raise typer.Exit(1)


def require(extra: str, *packages: str) -> None:
    """Tell which extra to install where one of its packages is missing.

    Raises:
        MissingDependencyError: it names the extra.
    """
    if missing := [name for name in packages if find_spec(name) is None]:
        raise MissingDependencyError(
            f"not installed, but needed here: {', '.join(missing)}; "
            f"pip install 'edgeseg[{extra}]', in the source folder pip install '.[{extra}]'"
        )


# ------------------------------------------------------------------------------------- printing


@contextmanager
def _progress(work: str = "segmenting") -> Iterator[Callable[[int, int | None], None]]:
    """A progress bar on the terminal's error stream, and the function that advances it."""
    columns = (TextColumn(work), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    silent = not diagnostics.is_terminal  # in a log the bar would be an empty line
    with Progress(*columns, console=diagnostics, transient=True, disable=silent) as progress:
        task = progress.add_task("", total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _print_json(value: object) -> None:
    print(json.dumps(value, indent=1, ensure_ascii=False))


def _print_line(text: str) -> None:
    """One line as it is: neither wrapped, so that paths can be copied, nor coloured."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _print_report(report: Report, as_json: bool) -> None:
    if as_json:
        _print_json(asdict(report))
        return
    _print_line(report.runtime)
    console.print(
        f"{report.frames} frame{'s' if report.frames > 1 else ''}, "
        f"{report.frames_per_second:.1f} a second with reading, drawing and writing"
    )
    stages = Table("stage", *(Column(name, justify="right") for name in ("p50 ms", "p99 ms")))
    for stage, times in report.stages_ms.items():
        stages.add_row(stage, f"{times.p50:.2f}", f"{times.p99:.2f}")
    areas = Table("class", Column("area", justify="right"))
    for name, area in sorted(report.areas.items(), key=lambda item: -item[1]):
        areas.add_row(name, f"{area:.1%}")
    console.print(stages, areas)
    for path in report.written:
        _print_line(f"wrote {path}")


def _print_archive(report: ArchiveReport, as_json: bool) -> None:
    if as_json:
        _print_json(asdict(report))
        return
    _print_line(
        f"{report.labelled} of {report.inputs} inputs labelled, {report.frames} frames "
        f"({report.frames_now} now, in {report.seconds:.0f} s) with the {report.computed}"
    )
    if report.abandoned:
        _print_line(f"{report.abandoned} chunks were left by workers that died, others did them")
    if report.others:
        _print_line(f"{report.others} other files are neither images nor videos by name")
    if report.gone:
        _print_line(f"{report.gone} inputs of the record are no longer in the archive")
    for failure in report.failures:
        _print_line(printable(f"failed: {failure.input}: {failure.error}", 2000))
    if report.failed > len(report.failures):
        _print_line(f"and {report.failed - len(report.failures)} more, see the record")
    _print_line(f"wrote {report.record}")


def _print_bench(report: BenchReport) -> None:
    from edgeseg.bench import facts, rows

    _print_line(report.runtime)
    _print_line(f"{report.golden:.3%} of the golden sample's pixels as trained")
    percentiles = ("p50 ms", "p90", "p99", "max", "FPS", "calls")
    columns = (Column(name, justify="right") for name in percentiles)
    times = Table(f"{report.frame} frame", *columns)
    for name, row in rows(report).items():
        ms = (f"{value:.2f}" for value in (row.p50, row.p90, row.p99, row.max))
        times.add_row(name, *ms, f"{row.fps:.1f}", str(len(row.ms)))
    for stage, median in report.stages_ms.items():
        times.add_row(f"  {stage}", f"{median:.2f}", *[""] * 5)
    counts = (Column(name, justify="right") for name in ("frames", "missed", "jitter ms"))
    sources = Table("source", *counts)
    for source in report.sources:
        jitter = f"{source.jitter_ms:.2f}"
        sources.add_row(f"{source.hz:g} Hz", str(source.offered), str(source.missed), jitter)
    console.print(times, sources)
    for name, value in facts(report).items():
        _print_line(f"{name}: {value}")


def _print_scores(scores: Scores, images: int) -> None:
    numbers = [Column(name, justify="right") for name in ("IoU", "accuracy", "boundary F")]
    classes = Table("class", *numbers)
    measured = scores.summary()
    for name in scores.classes:
        columns = (measured[key][name] for key in ("iou", "class_accuracy", "boundary_f"))
        classes.add_row(escape(name), *map(_percent, columns))
    means = ("miou", "mean_class_accuracy", "mean_boundary_f")
    classes.add_section()
    classes.add_row("mean", *(_percent(measured[key]) for key in means))
    console.print(classes)
    if measured["category_iou"] is not None:
        categories = Table("category", Column("IoU", justify="right"))
        for name, iou in measured["category_iou"].items():
            categories.add_row(escape(name), _percent(iou))
        categories.add_section()
        categories.add_row("mean", _percent(measured["category_miou"]))
        console.print(categories)
    console.print(
        f"mIoU {_percent(measured['miou'])}, "
        f"pixel accuracy {_percent(measured['pixel_accuracy'])}, "
        f"frequency-weighted IoU {_percent(measured['frequency_weighted_iou'])}, {images} images"
    )


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _print_manifest(path: Path, manifest: Manifest, as_json: bool) -> None:
    if as_json:
        print(manifest.model_dump_json(indent=1))
        return
    rows = {
        "file": f"{path} ({path.stat().st_size / 1e6:.1f} MB)",
        "name": f"{manifest.name}, by {manifest.created_by}",
        "classes": ", ".join(manifest.classes),
        "input": f"{manifest.input.width}×{manifest.input.height}, {manifest.input.resize}",
        "network": f"{manifest.architecture.backbone}, text guidance in the "
        f"{manifest.architecture.text_guidance}"
        if manifest.architecture.text_guidance
        else f"{manifest.architecture.backbone}, no text guidance",
        "text": manifest.text or "–",
        "training": manifest.training.dataset,
        "mIoU": "not measured"
        if manifest.training.miou is None
        else f"{manifest.training.miou:.1%} on {manifest.training.validation}",
        "license": manifest.license or "not stated",
    }
    table = Table("", Column(overflow="fold"), box=None, show_header=False, pad_edge=False)
    for key, value in rows.items():
        table.add_row(f"[bold]{key}[/bold]", escape(value))
    for target in manifest.targets:
        size = sum(manifest.parts[part].size for part in target.parts)
        measured = ", ".join(
            f"{agreement.pixels:.2%} of labels as in PyTorch in {agreement.precision}"
            for agreement in target.agreement
        )
        facts = [f"{size / 1e6:.1f} MB, {target.weights} weights", measured or "not measured"]
        if target.quantization is not None:
            facts.append(_cost(target.kind, target.quantization))
        if target.requires:
            facts.append(_needs(target))
        table.add_row(f"[bold]{target.kind}[/bold]", escape("; ".join(facts)))
    console.print(table)


def _needs(target: Target) -> str:
    """What a machine must have for a target that is code."""
    needs = target.requires
    listed = [f"{needs.get('library', target.kind)} {needs.get('version', '')}".strip()]
    if "compute_capability" in needs:
        listed.append(f"compute capability {', '.join(needs['compute_capability'].split())}")
    if "platform" in needs:
        listed.append(needs["platform"])
    return f"computes in {target.precision}, needs {', '.join(listed)}"


def _cost(kind: TargetKind, made: Quantization) -> str:
    """What INT8 costs, and when it is taken for that."""
    if made.miou is None or made.float_miou is None:
        cost, taken = "mIoU not measured", "it runs only with --precision int8"
    else:
        cost = f"mIoU {made.miou:.2%}, in float32 {made.float_miou:.2%} ({made.validation})"
        taken = (
            "taken where it runs" if made.harmless else "too much less, --precision int8 takes it"
        )
    if kind == "onnx":
        taken = "'edgeseg build --precision int8' makes plans of it"
    return f"{cost}: {taken}"


def _class_table(classes: str | None) -> ClassTable | None:
    """Classes from a known set's name, or from names with commas between."""
    if classes is None:
        return None
    return CLASS_TABLES.get(classes) or ClassTable.named(classes.split(","))


def _model_table(names: tuple[str, ...], palette: tuple[tuple[int, int, int], ...]) -> ClassTable:
    """A network's classes, with categories if they are a known set's."""
    known = [table for table in CLASS_TABLES.values() if table.names == names]
    return known[0] if known else ClassTable(names, palette)


def _known_table(dataset: str) -> ClassTable:
    if dataset not in CLASS_TABLES:
        known = ", ".join(CLASS_TABLES)
        raise InputError(f"no set {dataset!r} is known by name; there are {known}")
    return CLASS_TABLES[dataset]


def _source(text: str) -> str | int:
    """A camera's index, or the name of anything else."""
    return int(text) if text.isdecimal() else text


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    if match is None:
        raise InputError(f"size {text!r} is not WIDTHxHEIGHT; write it like 1024x512")
    return int(match[1]), int(match[2])


def _views(sliding: str | None, stride: str | None, scales: str, flip: bool) -> Views:
    """What the network is to see, from the options as they are written."""
    window = None
    if sliding is not None:
        width, height = _size(sliding)
        across, down = (
            (-(-2 * width // 3), -(-2 * height // 3)) if stride is None else _size(stride)
        )
        window = Window(size=(height, width), stride=(down, across))
    elif stride is not None:
        raise InputError("--stride is of a window; name that with --sliding WIDTHxHEIGHT")
    try:
        factors = tuple(float(scale) for scale in scales.split(","))
    except ValueError:
        raise InputError(
            f"scales {scales!r} are not numbers with commas between; write them like 0.5,1,1.5"
        ) from None
    return Views(window, factors, flip)
