// Runs a launch on the calling thread, every CUDA thread a fiber. One launch at a time.
#include <cuda_runtime.h>
#include <ucontext.h>

#include <array>
#include <memory>
#include <numeric>
#include <random>
#include <set>
#include <string>
#include <vector>

emulation::Index threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace emulation {
namespace {

constexpr std::size_t kStackBytes = 128 * 1024;
constexpr std::size_t kMaxDynamicBytes = 48 * 1024;  // what a kernel gets without asking for more
constexpr int kMaxThreads = 1024;
constexpr unsigned kMaxGridRows = 65535;  // in y and z
constexpr int kPoison = 0xFF;             // NaN in every floating-point type, -1 in integers

enum class State { ready, at_barrier, at_exchange, done };

struct Fiber {
    ucontext_t context;
    std::unique_ptr<char[]> stack{new char[kStackBytes]};
    Index index;
    State state;
};

using Exchange = std::array<std::uint64_t, kWarp>;

std::vector<Fiber> fibers(kMaxThreads);
// What the lanes of each warp bring, and what they brought to the last exchange.
std::array<Exchange, kMaxThreads / kWarp> brought, delivered;
ucontext_t scheduler;
int current;
const std::function<void()>* body;
std::mt19937 random_engine;  // default seed: every run of the tests sees the same orders

std::unique_ptr<char[]> dynamic;  // as large as the launch asks for: a sanitizer sees its end
std::set<void*> poisoned;         // the shared arrays that this block has declared so far
std::string fault;                // of the last launch

void enter() {
    (*body)();
    fibers[current].state = State::done;
    swapcontext(&fibers[current].context, &scheduler);
}

void wait(State state) {
    Fiber& fiber = fibers[current];
    fiber.state = state;
    swapcontext(&fiber.context, &scheduler);
}

void prepare(int threads) {
    poisoned.clear();
    for (int i = 0; i < threads; ++i) {
        const unsigned x = i % blockDim.x, row = i / blockDim.x;
        Fiber& fiber = fibers[i];
        fiber.index = {x, row % blockDim.y, row / blockDim.y};
        fiber.state = State::ready;
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = fiber.stack.get();
        fiber.context.uc_stack.ss_size = kStackBytes;
        fiber.context.uc_link = &scheduler;
        makecontext(&fiber.context, enter, 0);
    }
}

int count(int begin, int end, State state) {
    return static_cast<int>(std::count_if(fibers.begin() + begin, fibers.begin() + end,
                                          [&](const Fiber& f) { return f.state == state; }));
}

void release(int begin, int end) {
    for (int i = begin; i < end; ++i) fibers[i].state = State::ready;
}

// Lets the warps go on whose lanes all came to an exchange; false if no lane is at one.
bool exchange(int threads) {
    bool any = false;
    for (int first = 0; first < threads; first += kWarp) {
        const int waiting = count(first, first + kWarp, State::at_exchange);
        if (waiting == 0) continue;
        any = true;
        if (waiting != kWarp) {
            fault = "a warp intrinsic that not all lanes reach";
            return any;
        }
        delivered[first / kWarp] = brought[first / kWarp];
        release(first, first + kWarp);
    }
    return any;
}

// Leaves `fault` behind where a GPU would hang.
void run_block(int threads) {
    prepare(threads);
    std::vector<int> order(threads);
    std::iota(order.begin(), order.end(), 0);
    while (fault.empty()) {
        std::shuffle(order.begin(), order.end(), random_engine);
        for (const int i : order) {
            if (fibers[i].state != State::ready) continue;
            current = i;
            threadIdx = fibers[i].index;
            swapcontext(&scheduler, &fibers[i].context);
        }
        if (exchange(threads)) continue;
        if (count(0, threads, State::done) == threads) return;
        if (count(0, threads, State::at_barrier) != threads) {
            fault = "a __syncthreads that not all threads reach";
        }
        release(0, threads);
    }
}

std::vector<Index> shuffled_blocks() {
    std::vector<Index> blocks;
    for (unsigned z = 0; z < gridDim.z; ++z) {
        for (unsigned y = 0; y < gridDim.y; ++y) {
            for (unsigned x = 0; x < gridDim.x; ++x) blocks.push_back({x, y, z});
        }
    }
    std::shuffle(blocks.begin(), blocks.end(), random_engine);
    return blocks;
}

}  // namespace

cudaError_t launch(const cudaLaunchConfig_t& config, const std::function<void()>& thread) {
    gridDim = config.gridDim;
    blockDim = config.blockDim;
    const unsigned threads = blockDim.x * blockDim.y * blockDim.z;
    // Whole warps only: the emulation's own limit, which all kernels here keep.
    if (gridDim.x * gridDim.y * gridDim.z == 0 || gridDim.y > kMaxGridRows ||
        gridDim.z > kMaxGridRows || threads == 0 || threads > kMaxThreads || threads % kWarp != 0 ||
        config.dynamicSmemBytes > kMaxDynamicBytes) {
        return cudaErrorInvalidConfiguration;
    }
    dynamic.reset(new char[config.dynamicSmemBytes]);
    body = &thread;
    fault.clear();
    for (const Index& block : shuffled_blocks()) {
        blockIdx = block;
        std::memset(dynamic.get(), kPoison, config.dynamicSmemBytes);
        run_block(static_cast<int>(threads));
        if (!fault.empty()) return cudaErrorLaunchFailure;
    }
    return cudaSuccess;
}

const char* error_text(cudaError_t error) {
    if (error == cudaSuccess) return "no error";
    return error == cudaErrorLaunchFailure ? fault.c_str() : "invalid configuration argument";
}

int ptx_version = 80;

void block_barrier() { wait(State::at_barrier); }

const std::uint64_t* warp_exchange(std::uint64_t mine) {
    brought[current / kWarp][current % kWarp] = mine;
    wait(State::at_exchange);
    return delivered[current / kWarp].data();
}

int lane() { return current % kWarp; }

void shared_array(void* address, std::size_t bytes) {
    if (poisoned.insert(address).second) std::memset(address, kPoison, bytes);
}

void* dynamic_shared() { return dynamic.get(); }

}  // namespace emulation

extern "C" __attribute__((visibility("default"))) void set_ptx_version(int version) {
    emulation::ptx_version = version;
}
