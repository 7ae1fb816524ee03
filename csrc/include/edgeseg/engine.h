// What surrounds the network of an engine file, and where a frame lies in it.
//
// `edgeseg unpack FILE --out FOLDER` writes FOLDER/engine.h with an EngineInfo, so that nothing of
// it is typed twice:
//
//     #include "FOLDER/engine.h"
//
//     const auto [content, source] = edgeseg::place({1080, 1920}, engine::info, {60, 80});
//     edgeseg::preprocess(frame, content, engine::info.normalization, input, 2);
//     ...                                                   // the network: input -> logits
//     edgeseg::upsample_argmax(logits, source, engine::info.align_corners, labels, nullptr, 2);
#pragma once

#include <array>
#include <cstdint>

#include "edgeseg/export.h"
#include "edgeseg/kernels.h"
#include "edgeseg/types.h"

namespace edgeseg {

struct Size {
    int height, width;
};

// How a frame fills the network's input: all of it, or with its own aspect ratio and bars around.
enum class Resize : std::uint8_t { stretch, letterbox };

// Points to constants; owns nothing.
struct EngineInfo {
    const char* name;
    Size input;  // of the network, in pixels
    Normalization normalization;
    Resize resize;
    bool align_corners;                // of the logits, see upsample_argmax
    int class_count;                   // 1..254; a label is an index into the next two
    const char* const* class_names;    // UTF-8
    const std::uint8_t (*palette)[3];  // R,G,B
};

struct Placement {
    Rect content;  // of the network's input: preprocess resizes the frame into it
    RectF source;  // of the logits: the labels that upsample_argmax gives cover it
};

// Where a frame of a size lies in an input, and its labels in the logits; all sizes at least 1.
EDGESEG_API Placement place(Size frame, Size input, Resize resize, Size logits, bool align_corners);

inline Placement place(Size frame, const EngineInfo& engine, Size logits) {
    return place(frame, engine.input, engine.resize, logits, engine.align_corners);
}

// The classes' colours as overlay takes them, for a frame of a format; other labels are black.
EDGESEG_API std::array<std::uint8_t, 256 * 3> colours(const EngineInfo& engine, PixelFormat format);

}  // namespace edgeseg
