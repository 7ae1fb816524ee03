"""The TensorRT target straight from a checkpoint, by Torch-TensorRT: the network as one plan.

`edgeseg build` makes a plan of the engine file's ONNX part, without torch. This way costs torch and
keeps the operator `edgeseg::score_map_concat`: as a TensorRT plugin whose kernel is our PTX, stored
in the plan (`score_map="plugin"`: no Python and no library of ours at run time), or as native
layers (`score_map="native"`). A plugin keeps TensorRT from fusing across it; which of the two is
faster is a question to the GPU at hand.
"""

# No `from __future__ import annotations`: TensorRT reads the annotations of a plugin's functions as
# types, and does not evaluate strings.

import inspect
from functools import cache
from importlib.util import find_spec
from typing import Any, Literal

import torch

from edgeseg import plugin
from edgeseg.engine_file import FloatType
from edgeseg.errors import EngineError, MissingDependencyError
from edgeseg.export.program import exported_program
from edgeseg.machine import this_platform
from edgeseg.models import STDCSeg
from edgeseg.ops import decomposition_table

ScoreMap = Literal["plugin", "native"]
PLUGIN = "edgeseg::score_map_concat"
LEAST_CAPABILITY = (8, 0)  # of the plugin's PTX


def check_machine(score_map: ScoreMap) -> None:
    """Raises where this machine or installation cannot build a plan from a checkpoint.

    Raises:
        MissingDependencyError: Torch-TensorRT is not installed.
        EngineError: there is no CUDA device (Torch-TensorRT cannot even be imported without), or
            no kernel for the plugin.
    """
    if find_spec("torch_tensorrt") is None:
        raise MissingDependencyError(
            "Torch-TensorRT is not installed, it builds TensorRT plans from checkpoints; "
            "pip install 'edgeseg[torch-tensorrt]', in the source folder "
            "pip install '.[torch-tensorrt]'"
        )
    if not torch.cuda.is_available():
        raise EngineError(
            "PyTorch finds no CUDA device, a TensorRT plan is built on the GPU that runs it; "
            "export the ONNX target here, then there 'edgeseg build FILE --target tensorrt'"
        )
    if score_map == "plugin":
        plugin.ptx()
        major, minor = torch.cuda.get_device_capability()
        if (major, minor) < LEAST_CAPABILITY:
            raise EngineError(
                f"the GPU has compute capability {major}.{minor}, the score map's plugin needs "
                "8.0 or later; take TensorRT's layers for it: --score-map native"
            )


def to_tensorrt(
    model: STDCSeg,
    height: int,
    width: int,
    precision: FloatType,
    score_map: ScoreMap,
    *,
    device: str = "cuda",
) -> bytes:
    """Build a plan: "image" 1×3×h×w -> "logits" 1×K×⌈h/8⌉×⌈w/8⌉, linear, both in `precision`.

    The plan is strongly typed: every layer computes in what the exported network says. All of it
    is one plan; an operator that TensorRT cannot take is an error, nothing falls back to PyTorch.

    Args:
        model: the network.
        height: rows of the input in pixels.
        width: columns of the input in pixels.
        precision: of the input, the weights, the layers and the logits.
        score_map: our kernel as a plugin, or native layers.
        device: where PyTorch holds the weights while they are converted.

    Raises:
        MissingDependencyError: Torch-TensorRT is older than 2.14.
        EngineError: Torch-TensorRT or TensorRT refuses the network, or edgeseg was built without
            CUDA and has no kernel for the plugin.
    """
    from torch_tensorrt.dynamo import convert_exported_program_to_serialized_trt_engine as convert

    if "output_binding_names" not in inspect.signature(convert).parameters:
        raise MissingDependencyError(
            "this Torch-TensorRT cannot name a plan's output, 2.14 can; "
            "pip install 'edgeseg[torch-tensorrt]', or build a plan from the ONNX target: "
            "edgeseg build FILE --target tensorrt"
        )
    program = exported_program(model, height, width, precision, device=device)
    if score_map == "native":
        program = program.run_decompositions(decomposition_table())
    else:
        register_plugin()
    (image,), _ = program.example_inputs
    try:
        plan = convert(
            program,
            arg_inputs=[image],
            arg_input_binding_names=("image",),
            output_binding_names="logits",
            require_full_compilation=True,
            min_block_size=1,
            disable_tf32=True,  # float32 means float32
        )
    except Exception as error:  # whatever a converter, TensorRT or its bindings raise
        raise EngineError(
            f"Torch-TensorRT could not build the network in {precision} with a {score_map} score "
            f"map: {error}; its log has the reason. 'edgeseg build FILE --target tensorrt' builds "
            "a plan from the ONNX target instead"
        ) from error
    return bytes(plan)


def requirements(classes: int) -> dict[str, str]:
    """What a machine must have to run a plan that is built here now."""
    import tensorrt

    major, minor = torch.cuda.get_device_capability()
    return {
        "library": "tensorrt",
        "version": tensorrt.__version__,
        "compute_capability": f"{major}.{minor}",
        "platform": this_platform(),
        "classes": str(classes),
    }


@cache
def register_plugin() -> None:
    """Tell TensorRT of the operator's plugin, and Torch-TensorRT to use it; once a process."""
    import tensorrt as trt
    import tensorrt.plugin as trtp
    from torch_tensorrt.dynamo.conversion.plugins import generate_plugin_converter

    define_plugin(trt, trtp)
    generate_plugin_converter(PLUGIN, use_aot_if_available=True)


def define_plugin(trt: Any, trtp: Any) -> None:
    """Define the plugin `edgeseg::score_map_concat`: its output, and the kernel with its launch.

    There is no autotuning: without it TensorRT uses the types of the network, which is strongly
    typed, and linear layouts, which is what the kernel takes.

    Args:
        trt: the module `tensorrt`.
        trtp: the module `tensorrt.plugin`.

    Raises:
        EngineError: edgeseg was built without CUDA.
    """
    ptx = plugin.ptx()
    dtypes: dict[Any, FloatType] = {
        trt.DataType.FLOAT: "float32",
        trt.DataType.HALF: "float16",
        trt.DataType.BF16: "bfloat16",
    }

    # Both functions are found by their parameters' names, in the operator's order.
    @trtp.register(PLUGIN)  # type: ignore[untyped-decorator]
    def describe(features: trtp.TensorDesc, text: trtp.TensorDesc) -> trtp.TensorDesc:
        out = features.like()
        out.shape_expr[1] = features.shape_expr[1] + text.shape_expr[0]
        return out

    @trtp.aot_impl(PLUGIN)  # type: ignore[untyped-decorator]
    def launch(
        features: trtp.TensorDesc,
        text: trtp.TensorDesc,
        outputs: tuple[trtp.TensorDesc],
        tactic: int,
    ) -> tuple[str, bytes, trtp.KernelLaunchParams, trtp.SymIntExprs]:
        kernel = plugin.launch(tuple(features.shape), text.shape[0], dtypes[features.dtype])
        params = trtp.KernelLaunchParams()
        params.grid_x, params.grid_y, params.grid_z = kernel.grid
        params.block_x, params.block_y, params.block_z = kernel.block
        params.shared_mem = kernel.shared_memory
        scalars = trtp.SymIntExprs(len(kernel.scalars))
        for index, value in enumerate(kernel.scalars):
            scalars[index] = trtp.SymInt32(value)  # an int would become an untyped expression
        return kernel.entry, ptx, params, scalars
