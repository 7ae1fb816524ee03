// A picture to labels and an overlay, without Python: libedgeseg around a network in OpenVINO.
//
//     segment NETWORK PICTURE.ppm LABELS.pgm OVERLAY.ppm [THREADS] [fastest|float32]
//
// NETWORK lies in the folder that `edgeseg unpack` wrote: onnx/model.onnx, openvino/int8.xml, ...
// The last is the precision of floats: the fastest one here (the default), or float32.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <openvino/openvino.hpp>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "edgeseg/engine.h"
#include "engine.h"  // of that folder
#include "netpbm.h"

namespace {

// OpenVINO's tensor, N×C×H×W and contiguous, as the kernels take it.
edgeseg::Tensor view(ov::Tensor tensor) {
    edgeseg::DType dtype{};
    if (tensor.get_element_type() == ov::element::f32) {
        dtype = edgeseg::DType::float32;
    } else if (tensor.get_element_type() == ov::element::f16) {
        dtype = edgeseg::DType::float16;
    } else if (tensor.get_element_type() == ov::element::u8) {
        dtype = edgeseg::DType::uint8;  // the network normalises
    } else {
        throw std::runtime_error("a tensor of " + tensor.get_element_type().to_string());
    }
    const ov::Shape shape = tensor.get_shape();
    const auto extent = [&shape](std::size_t i) { return static_cast<int>(shape.at(i)); };
    return edgeseg::nchw(tensor.data(), dtype, extent(0), extent(1), extent(2), extent(3));
}

// Labels one frame after the other; every buffer is made once.
class Segmenter {
   public:
    Segmenter(const std::string& network, int threads, bool float32) : threads_(threads) {
        ov::Core core;
        const auto model = core.read_model(network);
        const auto [height, width] = engine::info.input;
        model->reshape({1, 3, height, width});
        ov::AnyMap options = {ov::hint::performance_mode(ov::hint::PerformanceMode::LATENCY),
                              ov::inference_num_threads(threads)};
        if (float32) {
            options.insert(ov::hint::inference_precision(ov::element::f32));
        }
        request_ = core.compile_model(model, "CPU", options).create_infer_request();
        input_ = view(request_.get_input_tensor());
        logits_ = view(request_.get_output_tensor());
        if (logits_.c != engine::info.class_count) {
            throw std::runtime_error(network + " has " + std::to_string(logits_.c) +
                                     " classes, engine.h has " +
                                     std::to_string(engine::info.class_count));
        }
    }

    // Class ids of every pixel; `labels` has frame.height × frame.width of them.
    void label(const edgeseg::Frame& frame, std::uint8_t* labels) {
        const auto [content, source] =
            edgeseg::place({frame.height, frame.width}, engine::info, {logits_.h, logits_.w});
        edgeseg::preprocess(frame, content, engine::info.normalization, input_, threads_);
        request_.infer();
        const edgeseg::Labels out = {labels, 1, frame.height, frame.width, frame.width, 0};
        edgeseg::upsample_argmax(logits_, source, engine::info.align_corners, out, nullptr,
                                 threads_);
    }

   private:
    int threads_;
    ov::InferRequest request_;
    edgeseg::Tensor input_{}, logits_{};  // in the request's memory
};

void run(int argc, char** argv) {
    const int cores = static_cast<int>(std::thread::hardware_concurrency());  // 0 where unknown
    const int threads = std::max(argc > 5 ? std::stoi(argv[5]) : cores, 1);
    const std::string precision = argc > 6 ? argv[6] : "fastest";
    if (precision != "fastest" && precision != "float32") {
        throw std::runtime_error("precision " + precision + " is neither fastest nor float32");
    }
    Segmenter segmenter(argv[1], threads, precision == "float32");

    netpbm::Picture picture = netpbm::read(argv[2]);
    const auto& [height, width, channels, pixels] = picture;
    const edgeseg::Frame frame = {pixels.data(), height, width, channels * width,
                                  edgeseg::PixelFormat::rgb};
    netpbm::Picture labels = {height, width, 1, {}};
    labels.pixels.resize(pixels.size() / 3);
    segmenter.label(frame, labels.pixels.data());
    netpbm::write(argv[3], labels);

    const auto colours = edgeseg::colours(engine::info, frame.format);
    edgeseg::overlay(frame, labels.pixels.data(), width, colours.data(), 128, picture.pixels.data(),
                     frame.row_stride, threads);
    netpbm::write(argv[4], picture);

    std::vector<std::size_t> counts(256);
    for (const std::uint8_t id : labels.pixels) {
        ++counts[id];
    }
    for (int id = 0; id < engine::info.class_count; ++id) {
        const auto count = static_cast<double>(counts[static_cast<std::size_t>(id)]);
        std::cout << engine::info.class_names[id] << "\t"
                  << count / static_cast<double>(labels.pixels.size()) << "\n";
    }
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 5 || argc > 7) {
        std::cerr << "usage: segment NETWORK PICTURE.ppm LABELS.pgm OVERLAY.ppm [THREADS] "
                     "[fastest|float32]\n";
        return 2;
    }
    try {
        run(argc, argv);
        return EXIT_SUCCESS;
    } catch (const std::exception& error) {
        std::cerr << "segment: " << error.what() << "\n";
        return EXIT_FAILURE;
    }
}
