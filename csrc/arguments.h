// Arguments that mean the same to bindings.cpp (NumPy arrays) and bindings_cuda.cpp (device
// pointers), checked. A message names the argument, what was found and what was expected.
#pragma once

#include <pybind11/pybind11.h>

#include <array>
#include <cmath>
#include <cstddef>
#include <optional>
#include <string>

#include "edgeseg/kernels.h"

namespace edgeseg {

// Lets go of the GIL while it lives. Unlike pybind11's guard its destructor may be unwound through:
// that is how CPython up to 3.13 ends a daemon thread that comes back after the interpreter's end.
struct ReleaseGil {
    ReleaseGil() : state(PyEval_SaveThread()) {}
    ~ReleaseGil() noexcept(false) { PyEval_RestoreThread(state); }
    ReleaseGil(const ReleaseGil&) = delete;
    ReleaseGil& operator=(const ReleaseGil&) = delete;

    PyThreadState* state;
};

[[noreturn]] inline void fail(const std::string& argument, const std::string& found,
                              const std::string& expected) {
    throw pybind11::value_error(argument + ": found " + found + ", expected " + expected);
}

template <class Number>
std::string rectangle_text(const std::array<Number, 4>& rectangle) {
    const auto& [y, x, height, width] = rectangle;
    return "(y=" + std::to_string(y) + ", x=" + std::to_string(x) +
           ", height=" + std::to_string(height) + ", width=" + std::to_string(width) + ")";
}

inline PixelFormat check_pixel_format(const std::string& name) {
    if (name == "bgr") {
        return PixelFormat::bgr;
    }
    if (name == "rgb") {
        return PixelFormat::rgb;
    }
    if (name == "nv12") {
        return PixelFormat::nv12;
    }
    fail("pixel_format", "\"" + name + "\"", "\"bgr\", \"rgb\" or \"nv12\"");
}

inline Normalization check_normalization(const std::array<float, 3>& mean,
                                         const std::array<float, 3>& std, float pad) {
    Normalization result{};
    for (std::size_t c = 0; c < 3; ++c) {
        if (!std::isfinite(mean[c])) {
            fail("mean", std::to_string(mean[c]), "finite grey levels");
        }
        // The kernels multiply by the reciprocal.
        if (!(std[c] > 0) || !std::isfinite(std[c]) || !std::isfinite(1 / std[c])) {
            fail("std", std::to_string(std[c]), "positive grey levels with a finite reciprocal");
        }
        result.mean[c] = mean[c];
        result.std[c] = std[c];
    }
    if (!(pad >= 0 && pad <= 255)) {
        fail("pad", std::to_string(pad), "a grey level in 0..255");
    }
    result.pad = pad;
    return result;
}

// The part of `out` that the frame fills; all of it unless given.
inline Rect check_content(const std::optional<std::array<int, 4>>& content, const Tensor& out) {
    if (!content) {
        return {0, 0, out.h, out.w};
    }
    const auto [y, x, height, width] = *content;
    if (y < 0 || x < 0 || height < 1 || width < 1 || height > out.h - y || width > out.w - x) {
        fail("content", rectangle_text(*content),
             "a rectangle inside the " + std::to_string(out.h) + "×" + std::to_string(out.w) +
                 " output");
    }
    return {y, x, height, width};
}

// The part of the logit grid that the labels cover; all of it unless given.
inline RectF check_source(const std::optional<std::array<double, 4>>& source, const Tensor& logits,
                          bool align_corners) {
    if (!source) {
        const int border = align_corners ? 1 : 0;
        return {0.0, 0.0, static_cast<double>(logits.h - border),
                static_cast<double>(logits.w - border)};
    }
    const auto [y, x, height, width] = *source;
    if (!std::isfinite(y) || !std::isfinite(x) || !std::isfinite(height) || !std::isfinite(width) ||
        height < 0 || width < 0) {
        fail("source", rectangle_text(*source), "finite numbers, height and width not negative");
    }
    return {y, x, height, width};
}

inline void check_classes(const Tensor& logits) {
    if (logits.c > 254) {
        fail("logits", std::to_string(logits.c) + " classes", "at most 254");
    }
}

inline void check_alpha(int alpha) {
    if (alpha < 0 || alpha > 256) {
        fail("alpha", std::to_string(alpha), "0..256");
    }
}

}  // namespace edgeseg
