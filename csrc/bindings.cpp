// The kernels as functions on NumPy arrays. Everything that a caller can get wrong is found here,
// and the message names the argument, what was found and what was expected.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <initializer_list>
#include <optional>
#include <string>
#include <vector>

#include "arguments.h"
#include "edgeseg/engine.h"
#include "edgeseg/kernels.h"
#include "edgeseg/types.h"
#ifdef EDGESEG_WITH_CUDA
#include "edgeseg/cuda.h"
void bind_cuda(pybind11::module_& module);  // csrc/cuda/bindings_cuda.cpp
#endif

namespace py = pybind11;
using namespace pybind11::literals;

namespace edgeseg {
namespace {

using Shape = std::vector<py::ssize_t>;

std::string shape_text(const Shape& shape) {
    std::string text;
    for (const py::ssize_t extent : shape) {
        text += (text.empty() ? "" : "×") + std::to_string(extent);
    }
    return text.empty() ? "a scalar" : text;
}

Shape shape_of(const py::array& array) {
    return Shape(array.shape(), array.shape() + array.ndim());
}

std::string describe(const py::array& array) {
    return shape_text(shape_of(array)) + " " + py::str(array.dtype()).cast<std::string>();
}

// Checks number and size of the dimensions.
void check_dimensions(const char* name, const py::array& array, py::ssize_t count,
                      const char* expected) {
    const Shape shape = shape_of(array);
    if (array.ndim() != count || *std::min_element(shape.begin(), shape.end()) < 1) {
        fail(name, describe(array), expected);
    }
    if (*std::max_element(shape.begin(), shape.end()) > kMostExtent) {
        fail(name, describe(array), "at most " + std::to_string(kMostExtent) + " a dimension");
    }
}

// `what` the dimensions hold together, each of them at most kMostExtent.
void check_pieces(const char* name, const py::array& array, const char* what,
                  std::initializer_list<py::ssize_t> dimensions) {
    std::int64_t pieces = 1;
    for (const py::ssize_t i : dimensions) {
        pieces *= array.shape(i);
        if (pieces > kMostPieces) {
            fail(name, describe(array), "at most " + std::to_string(kMostPieces) + " " + what);
        }
    }
}

void check_shape(const char* name, const py::array& array, const Shape& shape) {
    if (shape_of(array) != shape) {
        fail(name, describe(array), "shape " + shape_text(shape));
    }
}

void check_aligned(const char* name, const py::array& array) {
    if (reinterpret_cast<std::uintptr_t>(array.data()) %
            static_cast<std::uintptr_t>(array.itemsize()) !=
        0) {
        fail(name, "an address that is no multiple of the element size",
             "an aligned array; copy it with np.array");
    }
}

template <class T>
void check_type(const char* name, const py::array& array) {
    if (!array.dtype().equal(py::dtype::of<T>())) {
        fail(name, describe(array),
             "dtype " + py::str(py::dtype::of<T>()).template cast<std::string>());
    }
    check_aligned(name, array);
}

void check_writeable(const char* name, const py::array& array) {
    if (!array.writeable()) {
        fail(name, "a read-only array", "one that can be written to");
    }
}

constexpr int kMostThreads = 1024;  // more are a mistake

void check_threads(int threads) {
    if (threads < 1 || threads > kMostThreads) {
        fail("threads", std::to_string(threads), "1 to " + std::to_string(kMostThreads));
    }
}

int extent(const py::array& array, py::ssize_t dimension) {
    return static_cast<int>(array.shape(dimension));
}

// Stride in elements. NumPy leaves the stride of a dimension of extent 1 undefined.
std::ptrdiff_t stride(const char* name, const py::array& array, py::ssize_t dimension) {
    if (array.shape(dimension) == 1) {
        return 0;
    }
    const std::ptrdiff_t bytes = array.strides(dimension);
    if (bytes % array.itemsize() != 0) {
        fail(name, "a stride of " + std::to_string(bytes) + " bytes",
             "strides that are multiples of the element size " + std::to_string(array.itemsize()));
    }
    return bytes / array.itemsize();
}

void check_contiguous(const char* name, const py::array& array, py::ssize_t first_dimension) {
    std::ptrdiff_t expected = 1;
    for (py::ssize_t i = array.ndim() - 1; i >= first_dimension; --i) {
        if (array.shape(i) != 1 && stride(name, array, i) != expected) {
            fail(name,
                 "stride " + std::to_string(array.strides(i)) + " bytes in dimension " +
                     std::to_string(i),
                 std::to_string(expected * array.itemsize()) +
                     "; make it contiguous with np.ascontiguousarray");
        }
        expected *= array.shape(i);
    }
}

DType element_type(const char* name, const py::array& array, bool bfloat16, bool uint8) {
    check_aligned(name, array);
    const py::dtype dtype = array.dtype();
    if (bfloat16) {
        if (!dtype.equal(py::dtype::of<std::uint16_t>())) {
            fail(name, describe(array), "uint16 holding bfloat16 bits, because bfloat16=True");
        }
        return DType::bfloat16;
    }
    if (dtype.equal(py::dtype::of<float>())) {
        return DType::float32;
    }
    if (dtype.equal(py::dtype("float16"))) {
        return DType::float16;
    }
    if (uint8 && dtype.equal(py::dtype::of<std::uint8_t>())) {
        return DType::uint8;
    }
    fail(name, describe(array),
         std::string("float32, float16") + (uint8 ? ", uint8" : "") +
             ", or uint16 holding bfloat16 bits with bfloat16=True");
}

// N×C×H×W array -> view. `data` is not const: inputs are only read by the kernels.
Tensor tensor_nchw(const char* name, const py::array& array, bool bfloat16) {
    return {const_cast<void*>(array.data()),
            element_type(name, array, bfloat16, false),
            extent(array, 0),
            extent(array, 1),
            extent(array, 2),
            extent(array, 3),
            stride(name, array, 0),
            stride(name, array, 1),
            stride(name, array, 2),
            stride(name, array, 3)};
}

Frame frame_view(const py::array& frame, PixelFormat format) {
    check_type<std::uint8_t>("frame", frame);
    const auto* data = static_cast<const std::uint8_t*>(frame.data());
    if (format == PixelFormat::nv12) {
        check_dimensions("frame", frame, 2, "3H/2×W uint8 for nv12");
        check_contiguous("frame", frame, 1);
        const int rows = extent(frame, 0), width = extent(frame, 1);
        if (rows % 3 != 0 || width % 2 != 0) {
            fail("frame", describe(frame), "3H/2×W for nv12 with H and W even");
        }
        return {data, rows / 3 * 2, width, stride("frame", frame, 0), format};
    }
    check_dimensions("frame", frame, 3, "H×W×3 uint8");
    if (extent(frame, 2) != 3) {
        fail("frame", describe(frame), "H×W×3: three channels");
    }
    check_contiguous("frame", frame, 1);
    return {data, extent(frame, 0), extent(frame, 1), stride("frame", frame, 0), format};
}

// `out` of preprocess: 3×h×w or h×w×3, seen as 1×3×h×w.
Tensor network_input(const py::array& out, const std::string& layout, bool bfloat16) {
    if (layout != "nchw" && layout != "nhwc") {
        fail("layout", "\"" + layout + "\"", "\"nchw\" or \"nhwc\"");
    }
    const bool planar = layout == "nchw";
    const char* expected = planar ? "3×h×w for layout \"nchw\"" : "h×w×3 for layout \"nhwc\"";
    check_dimensions("out", out, 3, expected);
    const py::ssize_t c = planar ? 0 : 2, h = planar ? 1 : 0, w = planar ? 2 : 1;
    if (extent(out, c) != 3) {
        fail("out", describe(out), expected);
    }
    check_writeable("out", out);
    return {const_cast<void*>(out.data()),
            element_type("out", out, bfloat16, true),
            1,
            3,
            extent(out, h),
            extent(out, w),
            0,
            stride("out", out, c),
            stride("out", out, h),
            stride("out", out, w)};
}

void bind_preprocess(const py::array& frame, const py::array& out, const std::array<float, 3>& mean,
                     const std::array<float, 3>& std, const std::string& pixel_format,
                     const std::optional<std::array<int, 4>>& content, float pad,
                     const std::string& layout, bool bfloat16, int threads) {
    const Frame source = frame_view(frame, check_pixel_format(pixel_format));
    const Tensor input = network_input(out, layout, bfloat16);
    const Normalization normalization = check_normalization(mean, std, pad);
    const Rect area = check_content(content, input);
    check_threads(threads);
    const ReleaseGil release;
    preprocess(source, area, normalization, input, threads);
}

void bind_score_map_concat(const py::array& features, const py::array& text, const py::array& out,
                           bool bfloat16, int threads) {
    check_dimensions("features", features, 4, "N×C×H×W");
    check_pieces("features", features, "pixels in all", {0, 2, 3});
    check_dimensions("text", text, 2, "K×C");
    check_type<float>("text", text);
    check_shape("text", text, {text.shape(0), features.shape(1)});
    check_contiguous("text", text, 0);
    check_dimensions("out", out, 4, "N×(C+K)×H×W");
    check_shape("out", out,
                {features.shape(0), features.shape(1) + text.shape(0), features.shape(2),
                 features.shape(3)});
    const Tensor input = tensor_nchw("features", features, bfloat16);
    const Tensor output = tensor_nchw("out", out, bfloat16);
    if (output.dtype != input.dtype) {
        fail("out", describe(out),
             "the dtype of features, " + py::str(features.dtype()).cast<std::string>());
    }
    check_writeable("out", out);
    check_threads(threads);
    const auto* rows = static_cast<const float*>(text.data());
    const int classes = extent(text, 0);
    const ReleaseGil release;
    score_map_concat(input, rows, classes, output, threads);
}

void bind_upsample_argmax(const py::array& logits, const py::array& labels,
                          const std::optional<std::array<double, 4>>& source, bool align_corners,
                          const std::optional<py::array>& confidence, bool bfloat16, int threads) {
    check_dimensions("logits", logits, 4, "N×K×h×w");
    const Tensor input = tensor_nchw("logits", logits, bfloat16);
    check_classes(input);
    check_dimensions("labels", labels, 3, "N×H×W uint8");
    check_pieces("labels", labels, "rows in all", {0, 1});
    check_type<std::uint8_t>("labels", labels);
    check_shape("labels", labels, {logits.shape(0), labels.shape(1), labels.shape(2)});
    check_contiguous("labels", labels, 2);
    check_writeable("labels", labels);
    const Labels output{static_cast<std::uint8_t*>(const_cast<void*>(labels.data())),
                        extent(labels, 0),
                        extent(labels, 1),
                        extent(labels, 2),
                        stride("labels", labels, 1),
                        stride("labels", labels, 0)};
    const RectF area = check_source(source, input, align_corners);
    float* probability = nullptr;
    if (confidence) {
        check_type<float>("confidence", *confidence);
        check_shape("confidence", *confidence, shape_of(labels));
        check_contiguous("confidence", *confidence, 0);
        check_writeable("confidence", *confidence);
        probability = static_cast<float*>(const_cast<void*>(confidence->data()));
    }
    check_threads(threads);
    const ReleaseGil release;
    upsample_argmax(input, area, align_corners, output, probability, threads);
}

void bind_overlay(const py::array& frame, const py::array& labels, const py::array& palette,
                  const py::array& out, int alpha, int threads) {
    const Frame source = frame_view(frame, PixelFormat::bgr);
    check_type<std::uint8_t>("labels", labels);
    check_shape("labels", labels, {frame.shape(0), frame.shape(1)});
    check_contiguous("labels", labels, 1);
    check_type<std::uint8_t>("palette", palette);
    check_shape("palette", palette, {256, 3});
    check_contiguous("palette", palette, 0);
    check_type<std::uint8_t>("out", out);
    check_shape("out", out, shape_of(frame));
    check_contiguous("out", out, 1);
    check_writeable("out", out);
    check_alpha(alpha);
    check_threads(threads);
    const auto* classes = static_cast<const std::uint8_t*>(labels.data());
    const auto* colours = static_cast<const std::uint8_t*>(palette.data());
    auto* blended = static_cast<std::uint8_t*>(const_cast<void*>(out.data()));
    const std::ptrdiff_t label_stride = stride("labels", labels, 0);
    const std::ptrdiff_t out_stride = stride("out", out, 0);
    const ReleaseGil release;
    overlay(source, classes, label_stride, colours, alpha, blended, out_stride, threads);
}

Size check_size(const char* name, const std::array<int, 2>& size) {
    if (size[0] < 1 || size[1] < 1) {
        fail(name, "(" + std::to_string(size[0]) + ", " + std::to_string(size[1]) + ")",
             "(height, width), each at least 1");
    }
    return {size[0], size[1]};
}

py::tuple bind_place(const std::array<int, 2>& frame, const std::array<int, 2>& input,
                     const std::string& resize, const std::array<int, 2>& logits,
                     bool align_corners) {
    if (resize != "stretch" && resize != "letterbox") {
        fail("resize", "\"" + resize + "\"", "\"stretch\" or \"letterbox\"");
    }
    const auto [content, source] = place(check_size("frame", frame), check_size("input", input),
                                         resize == "stretch" ? Resize::stretch : Resize::letterbox,
                                         check_size("logits", logits), align_corners);
    return py::make_tuple(py::make_tuple(content.y, content.x, content.height, content.width),
                          py::make_tuple(source.y, source.x, source.height, source.width));
}

std::vector<std::string> level_names() {
    std::vector<std::string> names;
    for (const char* const* level = dispatch_levels(); *level != nullptr; ++level) {
        names.emplace_back(*level);
    }
    return names;
}

void bind_set_dispatch_level(const std::string& name) {
    if (!set_dispatch_level(name.c_str())) {
        std::string known;
        for (const std::string& level : level_names()) {
            known += (known.empty() ? "" : ", ") + level;
        }
        fail("name", "\"" + name + "\"", "a level that this machine can run: " + known);
    }
}

py::dict build_info() {
    py::dict info;
    info["version"] = EDGESEG_VERSION;
    info["compiler"] = EDGESEG_COMPILER;
    info["dispatch_levels"] = level_names();
#ifdef EDGESEG_WITH_CUDA
    info["cuda"] = true;
    info["cuda_architectures"] = cuda::architectures();
    info["cuda_runtime"] = cuda::runtime_version();
#else
    info["cuda"] = false;
    info["cuda_architectures"] = py::none();
    info["cuda_runtime"] = py::none();
#endif
    return info;
}

}  // namespace
}  // namespace edgeseg

PYBIND11_MODULE(_core, module) {
    using namespace edgeseg;
    module.doc() = "Native kernels of edgeseg on NumPy arrays; every one releases the GIL.";
    module.attr("__version__") = EDGESEG_VERSION;

    module.def("preprocess", &bind_preprocess, py::arg("frame").noconvert(),
               py::arg("out").noconvert(), py::kw_only(), "mean"_a, "std"_a,
               "pixel_format"_a = "bgr", "content"_a = py::none(), "pad"_a = 0.0F,
               "layout"_a = "nchw", "bfloat16"_a = false, "threads"_a = 1,
               "Resize and normalise a uint8 frame into a network input.");
    module.def("score_map_concat", &bind_score_map_concat, py::arg("features").noconvert(),
               py::arg("text").noconvert(), py::arg("out").noconvert(), py::kw_only(),
               "bfloat16"_a = false, "threads"_a = 1,
               "Write the features and, behind them, every pixel's cosine with every class.");
    module.def("upsample_argmax", &bind_upsample_argmax, py::arg("logits").noconvert(),
               py::arg("labels").noconvert(), py::kw_only(), "source"_a = py::none(),
               "align_corners"_a, py::arg("confidence").noconvert() = py::none(),
               "bfloat16"_a = false, "threads"_a = 1,
               "Interpolate logits bilinearly to the size of `labels` and write the best class.");
    module.def("overlay", &bind_overlay, py::arg("frame").noconvert(),
               py::arg("labels").noconvert(), py::arg("palette").noconvert(),
               py::arg("out").noconvert(), py::kw_only(), "alpha"_a, "threads"_a = 1,
               "Blend class colours over a frame.");
    module.def("place", &bind_place, "frame"_a, "input"_a, py::kw_only(), "resize"_a, "logits"_a,
               "align_corners"_a, "Where a frame lies in an input, and its labels in the logits.");
    module.def("dispatch_levels", &level_names,
               "Instruction-set levels that this machine can run, slowest first.");
    module.def("dispatch_level", &dispatch_level, "The level in use.");
    module.def("set_dispatch_level", &bind_set_dispatch_level, "name"_a,
               "Choose the level, for tests and benchmarks.");
    module.def("build_info", &build_info, "What was compiled in.");
#ifdef EDGESEG_WITH_CUDA
    auto cuda_module = module.def_submodule("cuda", "The same kernels on CUDA device pointers.");
    bind_cuda(cuda_module);
#endif
}
