// A small persistent thread pool.
#pragma once

namespace edgeseg {

// Calls task(context, i) for every i in 0..count-1 on up to `threads` threads, the calling one
// included, and returns when all calls have. Any number of threads may call it at once, and a
// child of fork() may too. Tasks do not throw.
void parallel_for(int threads, int count, void (*task)(void* context, int index), void* context);

// The same for a callable.
template <class Function>
void parallel_for(int threads, int count, Function&& function) {
    auto call = [](void* context, int index) { (*static_cast<Function*>(context))(index); };
    parallel_for(threads, count, call, &function);
}

}  // namespace edgeseg
