#include "parallel.h"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>

namespace edgeseg {
namespace {

// One parallel_for. Lives on its caller's stack; all but `next` and `failed` is guarded by the
// pool's mutex.
struct Job {
    void (*task)(void* context, int index);
    void* context;
    int count;
    int vacancies;   // workers that may still join
    int active = 0;  // workers that have joined and not yet left
    std::atomic<int> next{0};
    std::atomic<bool> failed{false};
    std::exception_ptr error;      // of the first task that threw; read when all have left
    std::condition_variable idle;  // active has become 0

    Job(void (*task_)(void*, int), void* context_, int count_, int vacancies_)
        : task(task_), context(context_), count(count_), vacancies(vacancies_) {}

    void work() noexcept {
        try {
            for (int i = next.fetch_add(1); i < count; i = next.fetch_add(1)) {
                task(context, i);
            }
        } catch (...) {
            next.store(count);  // nobody starts another
            if (!failed.exchange(true)) {
                error = std::current_exception();
            }
        }
    }
};

// Workers sleep until there is a job to join. There are as many as all callers together asked for
// at once; a pool is never destroyed, so they need no way to stop.
class Pool {
   public:
    void run(Job& job) {
        const int helpers = job.vacancies;
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            demand_ += helpers;
            hire();
            jobs_.push_back(&job);
        }
        for (int i = 0; i < helpers; ++i) {
            has_job_.notify_one();
        }
        job.work();

        std::unique_lock<std::mutex> lock(mutex_);
        const auto place = std::find(jobs_.begin(), jobs_.end(), &job);
        if (place != jobs_.end()) {
            jobs_.erase(place);
        }
        job.idle.wait(lock, [&job] { return job.active == 0; });
        demand_ -= helpers;
    }

   private:
    void hire() {
        try {
            for (; workers_ < demand_; ++workers_) {
                std::thread(&Pool::serve, this).detach();
            }
        } catch (const std::system_error&) {
            // The system grants no more threads: the caller and those at hand do all the work.
        }
    }

    void serve() {
        std::unique_lock<std::mutex> lock(mutex_);
        for (;;) {
            has_job_.wait(lock, [this] { return !jobs_.empty(); });
            Job& job = *jobs_.front();
            ++job.active;
            if (--job.vacancies == 0) {
                jobs_.pop_front();
            }
            lock.unlock();
            job.work();
            lock.lock();
            if (--job.active == 0) {
                job.idle.notify_one();
            }
        }
    }

    std::mutex mutex_;
    std::condition_variable has_job_;
    std::deque<Job*> jobs_;
    int demand_ = 0;
    int workers_ = 0;
};

std::atomic<Pool*> current_pool{nullptr};

// A forked child has none of its parent's threads: it leaves the pool behind and starts its own.
[[maybe_unused]] const int fork_handler =
    pthread_atfork(nullptr, nullptr, [] { current_pool.store(nullptr); });

Pool& pool() {
    Pool* found = current_pool.load();
    if (found == nullptr) {
        Pool* created = new Pool;
        if (current_pool.compare_exchange_strong(found, created)) {
            return *created;
        }
        delete created;
    }
    return *found;
}

}  // namespace

void parallel_for(int threads, int count, void (*task)(void* context, int index), void* context) {
    Job job(task, context, count, std::min(threads, count) - 1);
    if (job.vacancies > 0) {
        pool().run(job);
    } else {
        job.work();
    }
    if (job.error) {
        std::rethrow_exception(job.error);
    }
}

}  // namespace edgeseg
