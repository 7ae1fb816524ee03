// A small persistent thread pool.
#pragma once

#include <algorithm>
#include <cstdint>

namespace edgeseg {

// Calls task(context, i) for every i in 0..count-1 on up to `threads` threads, the calling one
// included, and returns when all calls have. Any number of threads may call it at once, and a
// child of fork() may too. An exception of a task ends the work early and is thrown here.
void parallel_for(int threads, int count, void (*task)(void* context, int index), void* context);

// The same for a callable.
template <class Function>
void parallel_for(int threads, int count, Function&& function) {
    auto call = [](void* context, int index) { (*static_cast<Function*>(context))(index); };
    parallel_for(threads, count, call, &function);
}

// Splits 0..count-1 into ranges and calls function(first, last) for each, last excluded. Several
// ranges a thread even out their cost, and a thread that is late to wake takes fewer.
template <class Function>
void parallel_ranges(int threads, int count, Function&& function) {
    const int ranges = threads == 1 ? 1 : std::min(count, 4 * threads);
    parallel_for(threads, ranges, [&](int i) {
        const auto bound = [&](int range) {
            return static_cast<int>(std::int64_t{count} * range / ranges);
        };
        function(bound(i), bound(i + 1));
    });
}

}  // namespace edgeseg
