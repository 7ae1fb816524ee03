// Frame to labels around a network that is made up on the spot, so that nothing but libedgeseg is
// needed: a red half and a blue half must come back as the classes red and blue.
//
//     minimal [OVERLAY.ppm]
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <utility>
#include <vector>

#include "edgeseg/engine.h"
#include "netpbm.h"

namespace {

// What `edgeseg unpack` writes for a real one.
constexpr const char* class_names[] = {"red", "green", "blue"};
constexpr std::uint8_t palette[][3] = {{255, 0, 0}, {0, 255, 0}, {0, 0, 255}};
constexpr edgeseg::EngineInfo info = {
    "brightest channel",
    {64, 96},                                                          // height, width
    {{123.675F, 116.28F, 103.53F}, {58.395F, 57.12F, 57.375F}, 0.0F},  // mean, std, pad
    edgeseg::Resize::letterbox,
    false,  // align_corners
    3,
    class_names,
    palette,
};

// Three logits for every 8×8 pixels: their mean red, green and blue.
std::vector<float> brightest_channel(const std::vector<float>& input) {
    const int rows = info.input.height / 8, columns = info.input.width / 8;
    std::vector<float> logits(static_cast<std::size_t>(info.class_count * rows * columns));
    std::size_t pixel = 0;
    for (int c = 0; c < info.class_count; ++c) {
        for (int y = 0; y < info.input.height; ++y) {
            for (int x = 0; x < info.input.width; ++x) {
                const int cell = (c * rows + y / 8) * columns + x / 8;
                logits[static_cast<std::size_t>(cell)] += input[pixel++] / 64;
            }
        }
    }
    return logits;
}

}  // namespace

int main(int argc, char** argv) {
    constexpr int height = 270, width = 480, threads = 2;
    constexpr edgeseg::Size grid = {info.input.height / 8, info.input.width / 8};

    // A camera's frame, BGR: the left half red, the right half blue.
    std::vector<std::uint8_t> pixels(3 * height * width);
    for (std::size_t i = 0; i < height * width; ++i) {
        pixels[3 * i + (i % width < width / 2 ? 2 : 0)] = 200;
    }
    const edgeseg::Frame frame = {pixels.data(), height, width, 3 * width,
                                  edgeseg::PixelFormat::bgr};

    const auto [content, source] = edgeseg::place({height, width}, info, grid);
    std::vector<float> input(3 * info.input.height * info.input.width);
    edgeseg::preprocess(frame, content, info.normalization,
                        edgeseg::nchw(input.data(), edgeseg::DType::float32, 1, 3,
                                      info.input.height, info.input.width),
                        threads);

    std::vector<float> logits = brightest_channel(input);
    std::vector<std::uint8_t> labels(height * width);
    edgeseg::upsample_argmax(edgeseg::nchw(logits.data(), edgeseg::DType::float32, 1,
                                           info.class_count, grid.height, grid.width),
                             source, info.align_corners,
                             {labels.data(), 1, height, width, width, height * width}, nullptr,
                             threads);

    if (argc > 1) {
        const auto colours = edgeseg::colours(info, frame.format);
        std::vector<std::uint8_t> blended(pixels.size());
        edgeseg::overlay(frame, labels.data(), width, colours.data(), 128, blended.data(),
                         3 * width, threads);
        for (std::size_t i = 0; i < blended.size(); i += 3) {
            std::swap(blended[i], blended[i + 2]);  // the file is RGB
        }
        netpbm::write(argv[1], {height, width, 3, blended});
    }

    // Interpolation may move the border by less than a cell of the logits.
    constexpr int cell = 8 * width / info.input.width;
    for (int y = 0; y < height; ++y) {
        for (int x = 0; x < width; ++x) {
            const int found = labels[static_cast<std::size_t>(y * width + x)];
            const int expected = x < width / 2 ? 0 : 2;
            if (found != expected && std::abs(x - width / 2) > cell) {
                std::cerr << "label " << found << " at (" << x << ", " << y << "), "
                          << class_names[expected] << " was expected\n";
                return EXIT_FAILURE;
            }
        }
    }
    std::cout << "red left, blue right, on " << edgeseg::dispatch_level() << "\n";
    return EXIT_SUCCESS;
}
