// Fuzz the native kernels: an input chooses a kernel, its shapes, strides, number formats and
// numbers. Every buffer is exactly as large as the contract says, so that the address sanitizer
// sees a byte too far; and what the contract promises of the results is checked.
//
// libFuzzer calls LLVMFuzzerTestOneInput; driver.cpp does without it. Any number of threads may.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <vector>

#include "edgeseg/kernels.h"

namespace {

using namespace edgeseg;
using std::size_t;

[[noreturn]] void broken(const char* promise) {
    std::fprintf(stderr, "broken promise: %s\n", promise);
    std::abort();
}

void expect(bool kept, const char* promise) {
    if (!kept) {
        broken(promise);
    }
}

// The input's bytes; behind its end, numbers that follow from what was read.
class Input {
   public:
    Input(const std::uint8_t* data, size_t size) : data_(data), end_(data + size) {}

    std::uint8_t byte() {
        const std::uint8_t value = data_ < end_ ? *data_++ : 0;
        state_ = (state_ ^ value) * 0x100000001b3U;
        state_ ^= state_ >> 29U;
        return data_ < end_ ? value : static_cast<std::uint8_t>(state_ >> 32U);
    }
    // low..high, both included.
    int in(int low, int high) {
        const unsigned value = byte() | static_cast<unsigned>(byte()) << 8U;
        return low + static_cast<int>(value % static_cast<unsigned>(high - low + 1));
    }
    bool flag() { return (byte() & 1U) != 0; }
    float real() {
        static const float special[] = {0.0F, -0.0F, 1.0F, 65504.0F, 1e-8F, -1e30F, 3e38F};
        const int choice = in(0, 15);
        return choice < 7 ? special[choice] : static_cast<float>(in(-30000, 30000)) / 256.0F;
    }
    double position() {
        static const double special[] = {0.0, 1e-300, 1e300, 1.7e308, 0.5, 1e9};
        const int choice = in(0, 15);
        return choice < 6 ? special[choice] : in(0, 20000) / 512.0;
    }

   private:
    const std::uint8_t* data_;
    const std::uint8_t* end_;
    std::uint64_t state_ = 0xcbf29ce484222325U;
};

using Bytes = std::unique_ptr<std::uint8_t[]>;  // not a vector: no byte more than asked for

Bytes bytes(Input& input, size_t size) {
    Bytes result(new std::uint8_t[size]);
    std::generate_n(result.get(), size, [&] { return input.byte(); });
    return result;
}

size_t element_size(DType type) {
    return type == DType::float32 ? 4 : type == DType::uint8 ? 1 : 2;
}

// Numbers of that type: any bits, or finite ones of one of several kinds.
Bytes numbers(Input& input, DType type, size_t count, bool any_bits) {
    Bytes result = bytes(input, count * element_size(type));
    if (any_bits) {
        return result;
    }
    const int kind = input.in(0, 2);
    for (size_t i = 0; i < count; ++i) {
        if (type == DType::float32) {
            const float value = kind == 0   ? 0.0F
                                : kind == 1 ? input.real()
                                            : static_cast<float>(input.byte() & 3U);
            // Contract of score_map_concat: |f| up to 65504.
            const float bounded = std::max(-65504.0F, std::min(65504.0F, value));
            std::memcpy(result.get() + 4 * i, &bounded, 4);
        } else {
            const unsigned exponent = type == DType::float16 ? 0x7c00U : 0x7f80U;
            std::uint16_t bits = 0;
            std::memcpy(&bits, result.get() + 2 * i, 2);
            if (type == DType::bfloat16) {
                bits &= 0xc77fU;  // |f| < 65536
            }
            if ((bits & exponent) == exponent) {
                bits = static_cast<std::uint16_t>(bits & ~0x0400U);
            }
            std::memcpy(result.get() + 2 * i, &bits, 2);
        }
    }
    return result;
}

DType float_type(Input& input) {
    static const DType types[] = {DType::float32, DType::float16, DType::bfloat16};
    return types[input.in(0, 2)];
}

Tensor tensor(std::uint8_t* data, DType type, int n, int c, int h, int w, bool channels_last) {
    const std::ptrdiff_t plane = std::ptrdiff_t{h} * w;
    if (channels_last) {
        return {data, type, n, c, h, w, plane * c, 1, std::ptrdiff_t{w} * c, c};
    }
    return {data, type, n, c, h, w, plane * c, plane, w, 1};
}

void fuzz_preprocess(Input& input, int threads) {
    const auto format = static_cast<PixelFormat>(input.in(0, 2));
    const bool nv12 = format == PixelFormat::nv12;
    const int step = nv12 ? 2 : 1;
    const int height = step * input.in(1, 20), width = step * input.in(1, 20);
    const int rows = nv12 ? height / 2 * 3 : height, row_bytes = nv12 ? width : 3 * width;
    const int row_stride = row_bytes + input.in(0, 5);
    const Bytes pixels = bytes(input, static_cast<size_t>((rows - 1) * row_stride + row_bytes));
    const Frame frame{pixels.get(), height, width, row_stride, format};

    static const DType types[] = {DType::float32, DType::float16, DType::bfloat16, DType::uint8};
    const DType type = types[input.in(0, 3)];
    const int h = input.in(1, 40), w = input.in(1, 70);
    Rect content{input.in(0, h - 1), input.in(0, w - 1), 0, 0};
    content.height = input.in(1, h - content.y);
    content.width = input.in(1, w - content.x);
    Normalization normalization{};
    for (int c = 0; c < 3; ++c) {
        normalization.mean[c] = static_cast<float>(input.in(-300, 300));
        normalization.std[c] = static_cast<float>(input.in(1, 30000)) / 100.0F;
    }
    normalization.pad = static_cast<float>(input.in(0, 2550)) / 10.0F;

    const bool channels_last = input.flag();
    const size_t size = static_cast<size_t>(3 * h * w) * element_size(type);
    const Bytes one(new std::uint8_t[size]), many(new std::uint8_t[size]);
    preprocess(frame, content, normalization, tensor(one.get(), type, 1, 3, h, w, channels_last),
               1);
    preprocess(frame, content, normalization, tensor(many.get(), type, 1, 3, h, w, channels_last),
               threads);
    expect(std::memcmp(one.get(), many.get(), size) == 0, "preprocess: threads change nothing");
    if (type == DType::float32) {
        for (size_t i = 0; i < size / 4; ++i) {
            float value = 0;
            std::memcpy(&value, one.get() + 4 * i, 4);
            expect(std::fabs(value) <= 60000.0F, "preprocess: every value written, and finite");
        }
    }
}

void fuzz_score_map(Input& input, int threads) {
    const DType type = float_type(input);
    const bool channels_last = input.flag();
    const int n = input.in(1, 2), c = input.in(1, 70), h = input.in(1, 6), w = input.in(1, 9);
    const int classes = input.in(1, 20);
    const size_t element = element_size(type), pixels = static_cast<size_t>(h) * w;
    const Bytes features = numbers(input, type, n * c * pixels, false);
    // unit rows, from a vector that has no byte to spare
    const std::unique_ptr<float[]> text(new float[static_cast<size_t>(classes) * c]);
    for (int k = 0; k < classes; ++k) {
        float* row = text.get() + static_cast<size_t>(k) * c;
        double square = 0;
        for (int i = 0; i < c; ++i) {
            row[i] = static_cast<float>(input.in(-100, 100)) + (i == 0 ? 0.5F : 0.0F);
            square += double{row[i]} * row[i];
        }
        std::for_each(row, row + c,
                      [&](float& x) { x = static_cast<float>(x / std::sqrt(square)); });
    }
    const size_t size = n * (static_cast<size_t>(c) + classes) * pixels * element;
    const Bytes one(new std::uint8_t[size]), many(new std::uint8_t[size]);
    const Tensor in = tensor(features.get(), type, n, c, h, w, channels_last);
    const Tensor out = tensor(one.get(), type, n, c + classes, h, w, channels_last);
    score_map_concat(in, text.get(), classes, out, 1);
    score_map_concat(in, text.get(), classes,
                     tensor(many.get(), type, n, c + classes, h, w, channels_last), threads);
    expect(std::memcmp(one.get(), many.get(), size) == 0, "score_map: threads change nothing");
    for (int image = 0; image < n; ++image) {
        for (int channel = 0; channel < c + classes; ++channel) {
            for (int y = 0; y < h; ++y) {
                for (int x = 0; x < w; ++x) {
                    const auto at = [&](const Tensor& t) {
                        return (image * t.stride_n + channel * t.stride_c + y * t.stride_h +
                                x * t.stride_w) *
                               static_cast<std::ptrdiff_t>(element);
                    };
                    const std::uint8_t* written = one.get() + at(out);
                    if (channel < c) {
                        expect(std::memcmp(written, features.get() + at(in), element) == 0,
                               "score_map: features bit for bit");
                    } else if (type == DType::float32) {
                        float score = 0;
                        std::memcpy(&score, written, 4);
                        expect(std::fabs(score) <= 1.001F, "score_map: a cosine");
                    } else {
                        std::uint16_t bits = 0;
                        std::memcpy(&bits, written, 2);
                        expect((bits & 0x7fffU) <= (type == DType::float16 ? 0x3c02U : 0x3f81U),
                               "score_map: a cosine in 16 bits");
                    }
                }
            }
        }
    }
}

void fuzz_upsample(Input& input, int threads) {
    const DType type = float_type(input);
    const bool channels_last = input.flag(), align = input.flag(), any_bits = input.flag();
    const int n = input.in(1, 2), k = input.flag() ? input.in(1, 254) : input.in(1, 20);
    const int h = input.in(1, 9), w = input.in(1, 12);
    const int height = input.in(1, 40), width = input.in(1, 90);
    const Bytes logits = numbers(input, type, static_cast<size_t>(n) * k * h * w, any_bits);
    RectF source{0, 0, static_cast<double>(h - (align ? 1 : 0)),
                 static_cast<double>(w - (align ? 1 : 0))};
    if (input.flag()) {
        const double sign = input.flag() ? -1 : 1;
        source = {sign * input.position(), sign * input.position(), input.position(),
                  input.position()};
    }
    const int row_stride = width + input.in(0, 3);
    const int image_stride = height * row_stride + input.in(0, 3);
    const size_t size =
        static_cast<size_t>((n - 1) * image_stride + (height - 1) * row_stride + width);
    const size_t pixels = static_cast<size_t>(n) * height * width;
    Bytes labels[2];
    std::unique_ptr<float[]> confidence[2];
    const bool confident = input.flag();
    for (int run = 0; run < 2; ++run) {
        labels[run].reset(new std::uint8_t[size]);
        std::memset(labels[run].get(), 255, size);
        confidence[run].reset(confident ? new float[pixels] : nullptr);
        upsample_argmax(tensor(logits.get(), type, n, k, h, w, channels_last), source, align,
                        {labels[run].get(), n, height, width, row_stride, image_stride},
                        confidence[run].get(), run == 0 ? 1 : threads);
    }
    expect(std::memcmp(labels[0].get(), labels[1].get(), size) == 0,
           "upsample_argmax: threads change nothing");
    for (size_t i = 0; i < size; ++i) {
        const auto within = static_cast<std::ptrdiff_t>(i) % image_stride;
        const bool pixel =
            within < std::ptrdiff_t{height} * row_stride && within % row_stride < width;
        const int label = labels[0][i];
        expect(pixel ? label < k : label == 255,
               "upsample_argmax: ids below K, nothing between rows");
    }
    if (confident && !any_bits) {
        for (size_t i = 0; i < pixels; ++i) {
            expect(confidence[0][i] > 0.0F && confidence[0][i] <= 1.0001F,
                   "upsample_argmax: a probability");
        }
    }
}

void fuzz_overlay(Input& input, int threads) {
    const int height = input.in(1, 20), width = input.in(1, 70);
    const int row_stride = 3 * width + input.in(0, 4), label_stride = width + input.in(0, 4);
    const Bytes pixels = bytes(input, static_cast<size_t>((height - 1) * row_stride + 3 * width));
    const Bytes labels = bytes(input, static_cast<size_t>((height - 1) * label_stride + width));
    const Bytes palette = bytes(input, 768);
    const int alpha = input.in(0, 256);
    const Frame frame{pixels.get(), height, width, row_stride, PixelFormat::bgr};
    const Bytes out(new std::uint8_t[static_cast<size_t>(3 * width * height)]);
    overlay(frame, labels.get(), label_stride, palette.get(), alpha, out.get(), 3 * width, threads);
    const std::vector<std::uint8_t> before(pixels.get(),
                                           pixels.get() + (height - 1) * row_stride + 3 * width);
    overlay(frame, labels.get(), label_stride, palette.get(), alpha, pixels.get(), row_stride,
            threads);  // in place
    for (int y = 0; y < height; ++y) {
        for (int i = 0; i < 3 * width; ++i) {
            const int label = labels[static_cast<size_t>(y * label_stride + i / 3)];
            const int grey = before[static_cast<size_t>(y * row_stride + i)];
            const int colour = palette[static_cast<size_t>(3 * label + i % 3)];
            const int want =
                label == 255 ? grey : (grey * (256 - alpha) + colour * alpha + 128) >> 8;
            expect(out[static_cast<size_t>(y * 3 * width + i)] == want, "overlay: its formula");
            expect(pixels[static_cast<size_t>(y * row_stride + i)] == want, "overlay: in place");
        }
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, size_t size) {
    Input input(data, size);
    const int kernel = input.in(0, 3), threads = input.in(1, 4);
    switch (kernel) {
        case 0:
            fuzz_preprocess(input, threads);
            break;
        case 1:
            fuzz_score_map(input, threads);
            break;
        case 2:
            fuzz_upsample(input, threads);
            break;
        default:
            fuzz_overlay(input, threads);
    }
    return 0;
}
