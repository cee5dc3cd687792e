#include "pool.hpp"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

namespace dgr {
namespace {

std::atomic<int> g_threads{0};
thread_local bool t_inside = false;  // this thread runs a task

int processors() { return std::max(1, int(std::thread::hardware_concurrency())); }

int default_threads() {
  if (const char* text = std::getenv("OMP_NUM_THREADS")) {
    const long asked = std::strtol(text, nullptr, 10);  // the largest long if it does not fit
    if (asked > 0) return int(std::min<long>(asked, thread_limit()));
  }
  return processors();
}

class Pool {
 public:
  // Starts `workers` threads, or as many as the system allows.
  explicit Pool(int workers) : wanted_(workers) {
    threads_.reserve(size_t(workers));
    try {
      for (int i = 0; i < workers; ++i) threads_.emplace_back([this] { work(); });
    } catch (const std::system_error&) {  // a limit of the system; the others do the work
    }
  }

  ~Pool() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      stop_ = true;
    }
    wake_.notify_all();
    for (auto& thread : threads_) thread.join();
  }

  int wanted() const { return wanted_; }

  void run(int count, const std::function<void(int)>& task) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      task_ = &task;
      count_ = count;
      next_ = 0;
      failure_ = nullptr;
      open_ = true;
      ++generation_;
    }
    wake_.notify_all();
    t_inside = true;
    drain(task, count);
    t_inside = false;
    // Wait only for threads that have started: on a busy machine a thread may wake up long after the work is done.
    std::unique_lock<std::mutex> lock(mutex_);
    open_ = false;
    done_.wait(lock, [this] { return busy_ == 0; });
    if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
  }

 private:
  void drain(const std::function<void(int)>& task, int count) {
    try {
      for (int i = next_++; i < count; i = next_++) task(i);
    } catch (...) {  // out of memory; reported to the caller once every thread has stopped
      next_ = count;
      std::lock_guard<std::mutex> lock(mutex_);
      failure_ = std::current_exception();
    }
  }

  void work() {
    t_inside = true;
    unsigned seen = 0;
    for (;;) {
      const std::function<void(int)>* task;
      int count;
      {
        std::unique_lock<std::mutex> lock(mutex_);
        wake_.wait(lock, [&] { return stop_ || (open_ && generation_ != seen); });
        if (stop_) return;
        seen = generation_;
        ++busy_;
        task = task_;
        count = count_;
      }
      drain(*task, count);
      std::lock_guard<std::mutex> lock(mutex_);
      if (--busy_ == 0) done_.notify_one();
    }
  }

  int wanted_;
  std::vector<std::thread> threads_;
  std::mutex mutex_;
  std::condition_variable wake_, done_;
  const std::function<void(int)>* task_ = nullptr;
  std::atomic<int> next_{0};
  int count_ = 0, busy_ = 0;
  unsigned generation_ = 0;
  bool open_ = false, stop_ = false;
  std::exception_ptr failure_;
};

// The pool and the mutex of the call that uses it.  Neither is ever destroyed with the process: joining threads in
// static destructors can hang.
struct Shared {
  std::mutex mutex;
  Pool* pool = nullptr;
};

Shared*& shared() {
  static Shared* one = [] {
    // After a fork the parent's threads do not exist in the child, and the mutex may be held by one of them: the child
    // starts anew and leaves the parent's pool alone.
    pthread_atfork(nullptr, nullptr, [] {
      shared() = new Shared;
      t_inside = false;
    });
    return new Shared;
  }();
  return one;
}

}  // namespace

int thread_limit() { return std::max(64, processors()); }

int thread_count() {
  const int threads = g_threads.load();
  return threads > 0 ? threads : default_threads();
}

void set_thread_count(int count) { g_threads = std::min(count, thread_limit()); }

void parallel(int count, const std::function<void(int)>& task) {
  const int threads = t_inside ? 1 : thread_count();
  Shared& use = *shared();
  std::unique_lock<std::mutex> lock(use.mutex, std::defer_lock);
  if (std::min(threads, count) <= 1 || !lock.try_lock()) {
    for (int i = 0; i < count; ++i) task(i);
    return;
  }
  if (use.pool != nullptr && use.pool->wanted() != threads - 1) {
    delete use.pool;
    use.pool = nullptr;
  }
  if (use.pool == nullptr) use.pool = new Pool(threads - 1);
  use.pool->run(count, task);
}

}  // namespace dgr
