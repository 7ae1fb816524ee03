// Calls the fuzz target without libFuzzer: `driver THREADS CALLS SEED SECONDS`, at every dispatch
// level. Each thread makes CALLS inputs at a level from its own numbers, or stops when the time is
// over (0: never). Prints the number of calls and of levels; a broken promise aborts.
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <thread>
#include <vector>

#include "edgeseg/kernels.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

int main(int argc, char** argv) {
    if (argc != 5) {
        std::fprintf(stderr, "usage: driver THREADS CALLS SEED SECONDS\n");
        return 2;
    }
    const int threads = std::atoi(argv[1]);
    const long calls = std::atol(argv[2]);
    const auto seed = static_cast<unsigned>(std::atoi(argv[3]));
    const double seconds = std::atof(argv[4]);
    int levels = 0;
    while (edgeseg::dispatch_levels()[levels] != nullptr) {
        ++levels;
    }
    std::atomic<long> done{0};
    for (int level = 0; level < levels; ++level) {
        edgeseg::set_dispatch_level(edgeseg::dispatch_levels()[level]);
        const auto begun = std::chrono::steady_clock::now();
        std::vector<std::thread> workers;
        for (int worker = 0; worker < threads; ++worker) {
            workers.emplace_back([&, worker] {
                std::mt19937 random(seed * 1000 + static_cast<unsigned>(worker));
                std::vector<std::uint8_t> data(200);
                for (long call = 0; call < calls; ++call) {
                    const std::chrono::duration<double> passed =
                        std::chrono::steady_clock::now() - begun;
                    if (seconds > 0 && passed.count() * levels > seconds) {
                        break;
                    }
                    for (std::uint8_t& byte : data) {
                        byte = static_cast<std::uint8_t>(random());
                    }
                    LLVMFuzzerTestOneInput(data.data(), random() % (data.size() + 1));
                    done.fetch_add(1);
                }
            });
        }
        for (std::thread& worker : workers) {
            worker.join();
        }
    }
    std::printf("%ld calls in %d threads at %d levels\n", done.load(), threads, levels);
    return 0;
}
