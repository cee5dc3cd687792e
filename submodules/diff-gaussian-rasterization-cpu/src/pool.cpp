#include "pool.hpp"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <new>
#include <thread>
#include <vector>

namespace dgr {
namespace {

int default_threads() {
  if (const char* text = std::getenv("OMP_NUM_THREADS")) {
    const int asked = std::atoi(text);
    if (asked > 0) return asked;
  }
  return std::max(1u, std::thread::hardware_concurrency());
}

std::atomic<int> g_threads{0};

class Pool {
 public:
  explicit Pool(int workers) : pid_(getpid()) {
    for (int i = 0; i < workers; ++i) threads_.emplace_back([this] { work(); });
  }

  ~Pool() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      stop_ = true;
    }
    wake_.notify_all();
    for (auto& thread : threads_) thread.join();
  }

  size_t workers() const { return threads_.size(); }
  pid_t owner() const { return pid_; }

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
    drain(task, count);
    // Wait only for threads that have started: on a busy machine a thread may wake up long after the work is done.
    std::unique_lock<std::mutex> lock(mutex_);
    open_ = false;
    done_.wait(lock, [this] { return busy_ == 0; });
    if (failure_) std::rethrow_exception(failure_);
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

  pid_t pid_;
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

std::mutex g_pool_mutex;
Pool* g_pool = nullptr;  // leaked at exit: joining threads in static destructors can hang

constexpr size_t kCacheLimit = size_t(1) << 30;
struct Block {
  char* memory;
  size_t capacity;
};
std::mutex g_memory_mutex;
std::vector<Block> g_cache;
size_t g_cached = 0;

void discard(char* memory) { ::operator delete(memory, std::align_val_t(64)); }

}  // namespace

int thread_count() {
  const int threads = g_threads.load();
  return threads > 0 ? threads : default_threads();
}

void set_thread_count(int count) { g_threads = count; }

void parallel(int count, const std::function<void(int)>& task) {
  const int workers = std::min(thread_count(), count) - 1;
  // A task on the pool may itself call this with a single part: it must not lock the mutex that its caller holds.
  std::unique_lock<std::mutex> lock(g_pool_mutex, std::defer_lock);
  if (workers <= 0 || !lock.try_lock()) {
    for (int i = 0; i < count; ++i) task(i);
    return;
  }
  // After a fork the parent's threads do not exist here; its pool is left alone and a new one is made.
  const size_t wanted = size_t(thread_count() - 1);
  if (g_pool != nullptr && g_pool->owner() != getpid()) g_pool = nullptr;
  if (g_pool != nullptr && g_pool->workers() != wanted) {
    delete g_pool;
    g_pool = nullptr;
  }
  if (g_pool == nullptr) g_pool = new Pool(int(wanted));
  g_pool->run(count, task);
}

Memory take(size_t bytes) {
  bytes = std::max<size_t>((bytes + 4095) & ~size_t(4095), 4096);
  {
    std::lock_guard<std::mutex> lock(g_memory_mutex);
    size_t best = g_cache.size();
    for (size_t i = 0; i < g_cache.size(); ++i)
      if (g_cache[i].capacity >= bytes && g_cache[i].capacity <= 2 * bytes + (1 << 16) &&
          (best == g_cache.size() || g_cache[i].capacity < g_cache[best].capacity))
        best = i;
    if (best < g_cache.size()) {
      const Block block = g_cache[best];
      g_cache[best] = g_cache.back();
      g_cache.pop_back();
      g_cached -= block.capacity;
      return Memory(block.memory, Release{block.capacity});
    }
  }
  // Round up slightly, so that a slowly growing scene reuses its old blocks.
  const size_t capacity = bytes + bytes / 8;
  return Memory(static_cast<char*>(::operator new(capacity, std::align_val_t(64))), Release{capacity});
}

void Release::operator()(char* memory) const {
  std::vector<Block> dropped;
  {
    std::lock_guard<std::mutex> lock(g_memory_mutex);
    g_cache.push_back({memory, capacity});
    g_cached += capacity;
    size_t oldest = 0;
    while (g_cached > kCacheLimit || g_cache.size() - oldest > 256) {
      dropped.push_back(g_cache[oldest]);
      g_cached -= g_cache[oldest].capacity;
      ++oldest;
    }
    g_cache.erase(g_cache.begin(), g_cache.begin() + long(oldest));
  }
  for (const Block& block : dropped) discard(block.memory);
}

size_t cached_bytes() {
  std::lock_guard<std::mutex> lock(g_memory_mutex);
  return g_cached;
}

}  // namespace dgr
