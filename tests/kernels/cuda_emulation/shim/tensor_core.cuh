// The twin of csrc/cuda/tensor_core.cuh: the same functions, by exchanges between the lanes.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <array>
#include <cstdint>
#include <cstring>

namespace edgeseg::cuda {

// The pair of 32-bit registers that every lane of the warp holds.
inline std::array<std::array<std::uint32_t, 2>, emulation::kWarp> registers_of_all(
    std::uint32_t first, std::uint32_t second) {
    std::array<std::array<std::uint32_t, 2>, emulation::kWarp> all;
    const std::uint64_t* bits = emulation::warp_exchange(first | std::uint64_t{second} << 32);
    for (int i = 0; i < emulation::kWarp; ++i) {
        all[i] = {static_cast<std::uint32_t>(bits[i]), static_cast<std::uint32_t>(bits[i] >> 32)};
    }
    return all;
}

template <typename T>
float half_of(std::uint32_t pair, int index) {
    const auto bits = static_cast<std::uint16_t>(pair >> 16 * index);
    T value;
    std::memcpy(&value, &bits, sizeof value);
    return static_cast<float>(value);
}

template <typename T>
void multiply_add(float (&sum)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                  std::uint32_t b1) {
    const auto left = registers_of_all(a[0], a[1]);   // columns 0..7 of A
    const auto right = registers_of_all(a[2], a[3]);  // columns 8..15
    const auto b = registers_of_all(b0, b1);
    const int group = emulation::lane() / 4, column = emulation::lane() % 4 * 2;
    for (int i = 0; i < 4; ++i) {
        const int lower = i / 2, n = column + i % 2;
        for (int k = 0; k < 16; ++k) {
            const int holder = k % 8 / 2;
            const auto& half_row = (k < 8 ? left : right)[group * 4 + holder];
            sum[i] +=
                half_of<T>(half_row[lower], k % 2) * half_of<T>(b[n * 4 + holder][k / 8], k % 2);
        }
    }
}

template <bool kTransposed>
void load_matrices(std::uint32_t (&matrices)[4], const void* row) {
    std::array<const std::uint16_t*, emulation::kWarp> rows;
    const std::uint64_t* all = emulation::warp_exchange(reinterpret_cast<std::uint64_t>(row));
    for (int i = 0; i < emulation::kWarp; ++i) {
        if (all[i] % 16 != 0) std::abort();
        rows[i] = reinterpret_cast<const std::uint16_t*>(all[i]);
    }
    const int major = emulation::lane() / 4, minor = emulation::lane() % 4 * 2;
    for (int m = 0; m < 4; ++m) {
        const auto at = [&](int i) -> std::uint32_t {
            return kTransposed ? rows[m * 8 + i][major] : rows[m * 8 + major][i];
        };
        matrices[m] = at(minor) | at(minor + 1) << 16;
    }
}

}  // namespace edgeseg::cuda
