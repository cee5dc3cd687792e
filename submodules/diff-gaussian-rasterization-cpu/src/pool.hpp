// A thread pool that sleeps between calls.
#pragma once

#include <functional>

namespace dgr {

// Number of threads in use: what was set, else OMP_NUM_THREADS, else one per processor; at most `thread_limit`.
int thread_count();
void set_thread_count(int count);  // 0: OMP_NUM_THREADS or one per processor
int thread_limit();                // 64, or the number of processors if there are more

// Runs task(0) ... task(count - 1), each once, on the pool and the calling thread.  Waiting threads sleep: on a
// busy machine, spinning threads would take the processor from working ones.  Of concurrent calls, one runs on the
// pool, the others on their calling threads; a call from a task runs on the task's thread.  An exception of a
// task is thrown once all threads have stopped.
void parallel(int count, const std::function<void(int)>& task);

}  // namespace dgr
