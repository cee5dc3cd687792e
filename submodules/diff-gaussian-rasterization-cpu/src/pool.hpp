// Threads that sleep between calls, and memory that is kept between calls.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>

namespace dgr {

int thread_count();
void set_thread_count(int count);  // 0: as many as there are processors

// Runs task(0) ... task(count - 1), each once, on the pool and the calling thread.  Waiting threads sleep:
// on a busy machine spinning ones would take the processor from those that work.  Calls from several
// threads at once are served one on the pool, the others on their own thread.
void parallel(int count, const std::function<void(int)>& task);

// Uninitialized memory, returned to a cache when released: fresh pages would cost as much as the work on them.
struct Release {
  size_t capacity = 0;
  void operator()(char* memory) const;
};
using Memory = std::unique_ptr<char, Release>;
Memory take(size_t bytes);
size_t cached_bytes();

}  // namespace dgr
