// The submodule `edgeseg._core.cuda`: the CUDA kernels on raw device pointers, for whoever owns
// the memory (torch, cupy, TensorRT). Shapes and strides count elements, in the order that
// `tensor.shape` and `tensor.stride()` give them; `stream` is a cudaStream_t as an integer. Work is
// queued on the current device of the calling thread and nothing waits for it.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <cstdint>
#include <optional>
#include <string>

#include "../arguments.h"
#include "edgeseg/cuda.h"

namespace py = pybind11;

namespace edgeseg {
namespace {

using Pointer = std::uintptr_t;
template <std::size_t kAxes>
using Axes = std::array<std::int64_t, kAxes>;

template <std::size_t kAxes>
std::string text(const char* what, const Axes<kAxes>& values) {
    std::string result;
    for (const std::int64_t value : values) {
        result += (result.empty() ? "(" : ", ") + std::to_string(value);
    }
    return what + (" " + result) + ")";
}

DType check_dtype(const char* name, const std::string& dtype, bool uint8) {
    if (dtype == "float32") {
        return DType::float32;
    }
    if (dtype == "float16") {
        return DType::float16;
    }
    if (dtype == "bfloat16") {
        return DType::bfloat16;
    }
    if (uint8 && dtype == "uint8") {
        return DType::uint8;
    }
    fail(name, "\"" + dtype + "\"",
         std::string("\"float32\", \"float16\"") + (uint8 ? ", \"uint8\"" : "") +
             " or \"bfloat16\"");
}

int size_of(DType dtype) { return dtype == DType::float32 ? 4 : (dtype == DType::uint8 ? 1 : 2); }

void check_pointer(const char* name, Pointer pointer, int alignment = 1) {
    if (pointer == 0) {
        fail(name, "address 0", "a device pointer");
    }
    if (pointer % static_cast<Pointer>(alignment) != 0) {
        fail(name, "address " + std::to_string(pointer),
             "a multiple of the element size " + std::to_string(alignment));
    }
}

// Extents within what the kernels are written for; what is written has no two elements at one
// place, as far as single strides tell.
template <std::size_t kAxes>
void check_view(const char* name, const Axes<kAxes>& shape, const Axes<kAxes>& strides,
                bool written) {
    for (std::size_t axis = 0; axis < kAxes; ++axis) {
        if (shape[axis] < 1 || shape[axis] > kMostExtent) {
            fail(name, text("shape", shape), "extents of 1 to " + std::to_string(kMostExtent));
        }
        if (strides[axis] < (written && shape[axis] > 1 ? 1 : 0)) {
            fail(name, text("strides", strides) + " for " + text("shape", shape),
                 written ? "positive strides" : "strides that are not negative");
        }
    }
}

Tensor check_tensor(const char* name, Pointer data, DType dtype, const Axes<4>& shape,
                    const Axes<4>& strides, bool written) {
    check_pointer(name, data, size_of(dtype));
    check_view(name, shape, strides, written);
    const auto extent = [&](std::size_t axis) { return static_cast<int>(shape[axis]); };
    return {reinterpret_cast<void*>(data),
            dtype,
            extent(0),
            extent(1),
            extent(2),
            extent(3),
            strides[0],
            strides[1],
            strides[2],
            strides[3]};
}

void check_row_stride(const char* name, std::int64_t stride, std::int64_t row) {
    if (stride < row) {
        fail(name, std::to_string(stride), "at least a row's " + std::to_string(row) + " bytes");
    }
}

Frame check_frame(Pointer data, const Axes<2>& shape, std::int64_t row_stride, PixelFormat format) {
    check_pointer("frame", data);
    const auto [height, width] = shape;
    if (height < 1 || width < 1 || height > kMostExtent || width > kMostExtent) {
        fail("frame", text("shape", shape),
             "a height and width of 1 to " + std::to_string(kMostExtent));
    }
    const bool nv12 = format == PixelFormat::nv12;
    if (nv12 && (height % 2 != 0 || width % 2 != 0)) {
        fail("frame", text("shape", shape), "an even height and width for nv12");
    }
    check_row_stride("frame_row_stride", row_stride, nv12 ? width : 3 * width);
    return {reinterpret_cast<const std::uint8_t*>(data), static_cast<int>(height),
            static_cast<int>(width), row_stride, format};
}

cuda::Stream stream_of(Pointer stream) { return reinterpret_cast<cuda::Stream>(stream); }

void bind_preprocess(Pointer frame, const Axes<2>& frame_shape, std::int64_t frame_row_stride,
                     Pointer out, const Axes<3>& out_shape, const Axes<3>& out_strides,
                     const std::string& out_dtype, const std::array<float, 3>& mean,
                     const std::array<float, 3>& std, const std::string& pixel_format,
                     const std::optional<std::array<int, 4>>& content, float pad, Pointer stream) {
    const Frame source =
        check_frame(frame, frame_shape, frame_row_stride, check_pixel_format(pixel_format));
    if (out_shape[0] != 3) {
        fail("out", text("shape", out_shape), "(3, h, w)");
    }
    const Tensor input = check_tensor("out", out, check_dtype("out_dtype", out_dtype, true),
                                      {1, out_shape[0], out_shape[1], out_shape[2]},
                                      {0, out_strides[0], out_strides[1], out_strides[2]}, true);
    cuda::preprocess(source, check_content(content, input), check_normalization(mean, std, pad),
                     input, stream_of(stream));
}

void bind_score_map_concat(Pointer features, const Axes<4>& shape, const Axes<4>& strides,
                           Pointer text_rows, std::int64_t classes, Pointer out,
                           const Axes<4>& out_strides, const std::string& dtype, Pointer stream) {
    const DType type = check_dtype("dtype", dtype, false);
    const Tensor input = check_tensor("features", features, type, shape, strides, false);
    check_pointer("text", text_rows, sizeof(float));
    if (classes < 1 || classes > kMostExtent - input.c) {
        fail("classes", std::to_string(classes), "at least 1");
    }
    const Tensor output = check_tensor(
        "out", out, type, {shape[0], shape[1] + classes, shape[2], shape[3]}, out_strides, true);
    cuda::score_map_concat(input, reinterpret_cast<const float*>(text_rows),
                           static_cast<int>(classes), output, stream_of(stream));
}

void bind_upsample_argmax(Pointer logits, const Axes<4>& shape, const Axes<4>& strides,
                          const std::string& dtype, Pointer labels, const Axes<3>& labels_shape,
                          const Axes<3>& labels_strides, bool align_corners,
                          const std::optional<std::array<double, 4>>& source, Pointer confidence,
                          Pointer stream) {
    const Tensor input =
        check_tensor("logits", logits, check_dtype("dtype", dtype, false), shape, strides, false);
    check_classes(input);
    check_pointer("labels", labels);
    check_view("labels", labels_shape, labels_strides, true);
    if (labels_shape[0] != shape[0]) {
        fail("labels", text("shape", labels_shape),
             "one image for each of the logits' " + std::to_string(shape[0]));
    }
    if (labels_strides[2] != 1 && labels_shape[2] != 1) {
        fail("labels", text("strides", labels_strides), "contiguous rows");
    }
    if (confidence != 0) {
        check_pointer("confidence", confidence, sizeof(float));
    }
    const Labels output{reinterpret_cast<std::uint8_t*>(labels),
                        input.n,
                        static_cast<int>(labels_shape[1]),
                        static_cast<int>(labels_shape[2]),
                        labels_strides[1],
                        labels_strides[0]};
    cuda::upsample_argmax(input, check_source(source, input, align_corners), align_corners, output,
                          reinterpret_cast<float*>(confidence), stream_of(stream));
}

void bind_overlay(Pointer frame, const Axes<2>& frame_shape, std::int64_t frame_row_stride,
                  Pointer labels, std::int64_t labels_row_stride, Pointer palette, Pointer out,
                  std::int64_t out_row_stride, int alpha, Pointer stream) {
    // The palette has the frame's channel order, so bgr and rgb are the same here.
    const Frame source = check_frame(frame, frame_shape, frame_row_stride, PixelFormat::bgr);
    check_pointer("labels", labels);
    check_row_stride("labels_row_stride", labels_row_stride, source.width);
    check_pointer("palette", palette);
    check_pointer("out", out);
    check_row_stride("out_row_stride", out_row_stride, std::int64_t{3} * source.width);
    check_alpha(alpha);
    cuda::overlay(source, reinterpret_cast<const std::uint8_t*>(labels), labels_row_stride,
                  reinterpret_cast<const std::uint8_t*>(palette), alpha,
                  reinterpret_cast<std::uint8_t*>(out), out_row_stride, stream_of(stream));
}

}  // namespace
}  // namespace edgeseg

void bind_cuda(py::module_& module) {
    using namespace edgeseg;
    using namespace pybind11::literals;
    using NoGil = py::call_guard<ReleaseGil>;

    module.def("device_count", &cuda::device_count, NoGil(),
               "Number of CUDA devices; 0 without a driver.");
    module.def("preprocess", &bind_preprocess, NoGil(), "frame"_a, "frame_shape"_a,
               "frame_row_stride"_a, "out"_a, "out_shape"_a, "out_strides"_a, "out_dtype"_a,
               py::kw_only(), "mean"_a, "std"_a, "pixel_format"_a = "bgr", "content"_a = py::none(),
               "pad"_a = 0.0F, "stream"_a = 0,
               "Resize and normalise a uint8 frame into a network input.");
    module.def("score_map_concat", &bind_score_map_concat, NoGil(), "features"_a, "shape"_a,
               "strides"_a, "text"_a, "classes"_a, "out"_a, "out_strides"_a, "dtype"_a,
               py::kw_only(), "stream"_a = 0,
               "Write the features and, behind them, every pixel's cosine with every class.");
    module.def("upsample_argmax", &bind_upsample_argmax, NoGil(), "logits"_a, "shape"_a,
               "strides"_a, "dtype"_a, "labels"_a, "labels_shape"_a, "labels_strides"_a,
               py::kw_only(), "align_corners"_a, "source"_a = py::none(), "confidence"_a = 0,
               "stream"_a = 0,
               "Interpolate logits bilinearly to the size of `labels` and write the best class.");
    module.def("overlay", &bind_overlay, NoGil(), "frame"_a, "frame_shape"_a, "frame_row_stride"_a,
               "labels"_a, "labels_row_stride"_a, "palette"_a, "out"_a, "out_row_stride"_a,
               py::kw_only(), "alpha"_a, "stream"_a = 0, "Blend class colours over a frame.");
}
