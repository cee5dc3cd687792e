// A thread pool that sleeps between calls, and memory that is reused between calls.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>

namespace dgr {

int thread_count();
void set_thread_count(int count);  // 0: one per processor

// Runs task(0) ... task(count - 1), each once, on the pool and the calling thread.  Waiting threads sleep: on a
// busy machine, spinning threads would take the processor from working ones.  Of concurrent calls, one runs on the
// pool, the others on their calling threads.
void parallel(int count, const std::function<void(int)>& task);

// Uninitialized memory that returns to a cache when released: fresh pages would cost as much as the work on them.
struct Release {
  size_t capacity = 0;
  void operator()(char* memory) const;
};
using Memory = std::unique_ptr<char, Release>;
Memory take(size_t bytes);
size_t cached_bytes();

}  // namespace dgr
