// Colours blended over a frame: one thread for four pixels of a row.
#include "launch.cuh"
#include "pixel.cuh"

namespace edgeseg::cuda {
namespace {

constexpr int kQuad = 4;
constexpr int kChannels = 3;
constexpr int kLeaveAsIs = 255;

__global__ void overlay_kernel(Frame frame, const std::uint8_t* labels, std::ptrdiff_t label_stride,
                               const std::uint8_t* palette, int alpha, std::uint8_t* out,
                               std::ptrdiff_t out_stride) {
    const int x = (blockIdx.x * blockDim.x + threadIdx.x) * kQuad;
    const int y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= frame.width || y >= frame.height) return;

    const std::uint8_t* from = frame.data + y * frame.row_stride + x * kChannels;
    const std::uint8_t* label = labels + y * label_stride + x;
    std::uint8_t* to = out + y * out_stride + x * kChannels;

    const auto blend = [&](int grey, int id, int channel) {
        if (id == kLeaveAsIs) return static_cast<std::uint8_t>(grey);
        return blended(grey, __ldg(palette + id * kChannels + channel), alpha);
    };

    // Twelve bytes are three words.
    if (x + kQuad <= frame.width && holds_quad(from) && holds_quad(label) && holds_quad(to)) {
        const auto* from_words = reinterpret_cast<const uchar4*>(from);
        const uchar4 bytes[kChannels] = {from_words[0], from_words[1], from_words[2]};
        const uchar4 ids = *reinterpret_cast<const uchar4*>(label);
        auto* to_words = reinterpret_cast<uchar4*>(to);
        to_words[0] = {blend(bytes[0].x, ids.x, 0), blend(bytes[0].y, ids.x, 1),
                       blend(bytes[0].z, ids.x, 2), blend(bytes[0].w, ids.y, 0)};
        to_words[1] = {blend(bytes[1].x, ids.y, 1), blend(bytes[1].y, ids.y, 2),
                       blend(bytes[1].z, ids.z, 0), blend(bytes[1].w, ids.z, 1)};
        to_words[2] = {blend(bytes[2].x, ids.z, 2), blend(bytes[2].y, ids.w, 0),
                       blend(bytes[2].z, ids.w, 1), blend(bytes[2].w, ids.w, 2)};
        return;
    }
    for (int i = 0; i < kQuad && x + i < frame.width; ++i) {
        for (int channel = 0; channel < kChannels; ++channel) {
            to[i * kChannels + channel] = blend(from[i * kChannels + channel], label[i], channel);
        }
    }
}

}  // namespace

void overlay(const Frame& frame, const std::uint8_t* labels, std::ptrdiff_t label_stride,
             const std::uint8_t* palette, int alpha, std::uint8_t* out, std::ptrdiff_t out_stride,
             Stream stream) {
    const dim3 block(32, 8);
    const dim3 grid(ceil_div(frame.width, kQuad * block.x), ceil_div(frame.height, block.y));
    launch("overlay", overlay_kernel, grid, block, 0, stream, frame, labels, label_stride, palette,
           alpha, out, out_stride);
}

}  // namespace edgeseg::cuda
