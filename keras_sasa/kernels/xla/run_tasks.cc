#include "keras_sasa/kernels/xla/run_tasks.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <new>

namespace keras_sasa {
namespace {

namespace ffi = xla::ffi;

// How long a call waits for the threads of the pool before it helps them.
constexpr std::chrono::microseconds kPatience{300};

// Calls `work(0)` ... `work(count - 1)` on the threads of the pool.
//
// This thread yields its processor to them. If it took part at once, the
// threads it wakes would wait for a processor behind it, often for longer than
// the work takes. It does take part if they do not start soon, because all
// threads of the pool may be waiting in the same way; this thread may be one of
// them. It then waits only for work that has begun.
template <typename Work>
void ParallelFor(ffi::ThreadPool& pool, int64_t count, const Work& work) {
  struct State {
    std::atomic<int64_t> next{0};
    int64_t done = 0;
    int64_t started = 0;
    std::mutex mutex;
    std::condition_variable changed;
  };
  const int64_t threads = std::min<int64_t>(pool.num_threads(), count);
  if (threads < 2) {
    for (int64_t i = 0; i < count; ++i) work(i);
    return;
  }
  auto state = std::make_shared<State>();
  // `work` is used only for numbers below `count`, before this call ends.
  auto take = [state, count, &work] {
    int64_t done = 0;
    for (int64_t i; (i = state->next.fetch_add(1)) < count; ++done) work(i);
    std::lock_guard<std::mutex> lock(state->mutex);
    state->done += done;
    if (state->done == count) state->changed.notify_all();
  };
  for (int64_t i = 0; i < threads; ++i) {
    pool.Schedule([state, take, threads] {
      {
        std::lock_guard<std::mutex> lock(state->mutex);
        if (++state->started == threads) state->changed.notify_all();
      }
      take();
    });
  }
  std::unique_lock<std::mutex> lock(state->mutex);
  const bool all_started = state->changed.wait_for(lock, kPatience, [&] {
    return state->started == threads || state->done == count;
  });
  if (!all_started) {
    lock.unlock();
    take();
    lock.lock();
  }
  state->changed.wait(lock, [&] { return state->done == count; });
}

}  // namespace

ffi::Error RunTasks(ffi::ThreadPool& pool,
                    const std::function<std::unique_ptr<Tasks>()>& make) {
  try {
    const std::unique_ptr<Tasks> tasks = make();
    std::atomic<bool> failed{false};
    ParallelFor(pool, tasks->count(), [&](int64_t task) {
      try {
        tasks->Run(task);
      } catch (const std::bad_alloc&) {
        failed = true;
      }
    });
    if (!failed) {
      tasks->Finish();
      return ffi::Error::Success();
    }
  } catch (const std::bad_alloc&) {
  }
  return ffi::Error(ffi::ErrorCode::kResourceExhausted,
                    "keras_sasa kernel: out of memory.");
}

}  // namespace keras_sasa
