#include "memory.hpp"

#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <utility>
#include <vector>

namespace dgr {
namespace {

constexpr size_t kCacheLimit = size_t(1) << 30;
constexpr size_t kCacheBlocks = 256;
constexpr size_t kAskFrom = size_t(64) << 20;  // smaller requests do not ask the system first
constexpr std::align_val_t kAlignment{64};

// With the address sanitizer every request is a block of exactly its size, used once, so that the sanitizer sees what
// reaches beyond its end or beyond its life.
#if defined(__SANITIZE_ADDRESS__)
constexpr bool kExact = true;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
constexpr bool kExact = true;
#else
constexpr bool kExact = false;
#endif
#else
constexpr bool kExact = false;
#endif

struct Block {
  char* memory;
  size_t capacity;
};

// All blocks of this process: those that wait in the cache, oldest first, and the size of those in use.
struct Cache {
  Cache() { blocks.reserve(kCacheBlocks + 1); }  // a release must not allocate

  Block remove(size_t index) {
    const Block block = blocks[index];
    blocks.erase(blocks.begin() + std::ptrdiff_t(index));
    bytes -= block.capacity;
    return block;
  }

  std::mutex mutex;
  std::vector<Block> blocks;
  size_t bytes = 0, lent = 0;
};

Cache& cache() {
  static Cache* one = [] {
    // A fork while another thread holds the mutex would leave it locked for ever in the child.
    pthread_atfork([] { cache().mutex.lock(); }, [] { cache().mutex.unlock(); }, [] { cache().mutex.unlock(); });
    return new Cache;  // never destroyed: arrays may be released after static destructors
  }();
  return *one;
}

// The number that follows `key` in a file of the kernel, or SIZE_MAX.
size_t number_in(const std::string& path, const char* key) {
  std::FILE* file = std::fopen(path.c_str(), "r");
  if (file == nullptr) return SIZE_MAX;
  char line[256];
  unsigned long long value = 0;
  size_t found = SIZE_MAX;
  while (found == SIZE_MAX && std::fgets(line, sizeof(line), file) != nullptr)
    if (std::strncmp(line, key, std::strlen(key)) == 0 && std::sscanf(line + std::strlen(key), " %llu", &value) == 1)
      found = size_t(value);
  std::fclose(file);
  return found;
}

// What the control group (version 2) of this process leaves, or SIZE_MAX without a limit.
size_t left_in_group() {
  std::FILE* file = std::fopen("/proc/self/cgroup", "r");
  if (file == nullptr) return SIZE_MAX;
  char line[512];
  std::string group = "/sys/fs/cgroup";
  while (std::fgets(line, sizeof(line), file) != nullptr)
    if (std::strncmp(line, "0::", 3) == 0) group += std::string(line + 3, std::strcspn(line + 3, "\n")) + "/";
  std::fclose(file);
  const size_t most = number_in(group + "memory.max", ""), now = number_in(group + "memory.current", "");
  if (most == SIZE_MAX || now == SIZE_MAX) return SIZE_MAX;
  const size_t files = number_in(group + "memory.stat", "inactive_file");
  const size_t used = now - std::min(files == SIZE_MAX ? 0 : files, now);
  return most - std::min(used, most);
}

// Bytes that this process can still fill, or SIZE_MAX where the system does not tell.  `committed` bytes are allocated;
// those that have not been written yet do not show in the system's numbers.
size_t available(size_t committed) {
  const size_t kilobytes = number_in("/proc/meminfo", "MemAvailable:");
  size_t left = std::min(kilobytes == SIZE_MAX ? SIZE_MAX : kilobytes * 1024, left_in_group());
  if (left == SIZE_MAX) return left;
  const size_t resident = number_in("/proc/self/status", "VmRSS:");
  const size_t unwritten = resident == SIZE_MAX ? 0 : committed - std::min(committed, resident * 1024);
  return left - std::min(left, unwritten);
}

std::string gigabytes(size_t bytes) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.1f GB", double(bytes) * 1e-9);
  return text;
}

[[noreturn]] void refuse(size_t bytes, const char* what, size_t left) {
  std::string sentence = "out of memory: " + std::string(what) + " need ";
  sentence += bytes == SIZE_MAX ? "more than 64 bits can count" : gigabytes(bytes);
  if (left != SIZE_MAX) sentence += ", " + gigabytes(left) + " are available";
  throw OutOfMemory(sentence);
}

void discard(char* memory) { ::operator delete(memory, kAlignment); }

void empty_cache() {
  Cache& all = cache();
  for (;;) {
    Block block;
    {
      std::lock_guard<std::mutex> lock(all.mutex);
      if (all.blocks.empty()) return;
      block = all.remove(0);
    }
    discard(block.memory);
  }
}

}  // namespace

size_t product(std::initializer_list<size_t> factors, const char* what) {
  size_t result = 1;
  for (size_t factor : factors)
    if (__builtin_mul_overflow(result, factor, &result)) refuse(SIZE_MAX, what, SIZE_MAX);
  return result;
}

void expect_available(size_t bytes, const char* what) {
  if (bytes < kAskFrom) return;
  const auto left = [] {
    std::lock_guard<std::mutex> lock(cache().mutex);
    return available(cache().lent + cache().bytes);
  };
  const size_t wanted = bytes + bytes / 8;
  if (wanted <= left()) return;
  empty_cache();
  const size_t most = left();
  if (wanted > most) refuse(bytes, what, most);
}

Memory take(size_t bytes, const char* what) {
  if (bytes > PTRDIFF_MAX / 2) refuse(bytes, what, SIZE_MAX);
  if (!kExact) bytes = std::max<size_t>((bytes + 4095) & ~size_t(4095), 4096);
  Cache& all = cache();
  // Round up slightly, so that a slowly growing scene reuses its old blocks.
  const size_t capacity = kExact ? bytes : bytes + bytes / 8;
  {
    std::lock_guard<std::mutex> lock(all.mutex);
    size_t best = all.blocks.size();
    for (size_t i = 0; i < all.blocks.size(); ++i)
      if (all.blocks[i].capacity >= bytes && all.blocks[i].capacity <= 2 * bytes + (1 << 16) &&
          (best == all.blocks.size() || all.blocks[i].capacity < all.blocks[best].capacity))
        best = i;
    if (best < all.blocks.size()) {
      const Block block = all.remove(best);
      all.lent += block.capacity;
      return Memory(block.memory, Release{block.capacity});
    }
  }
  expect_available(bytes, what);
  auto* memory = static_cast<char*>(::operator new(capacity, kAlignment, std::nothrow));
  if (memory == nullptr) {
    empty_cache();
    memory = static_cast<char*>(::operator new(capacity, kAlignment, std::nothrow));
  }
  if (memory == nullptr) refuse(bytes, what, SIZE_MAX);
  std::lock_guard<std::mutex> lock(all.mutex);
  all.lent += capacity;
  return Memory(memory, Release{capacity});
}

void Release::operator()(char* memory) const noexcept {
  Cache& all = cache();
  {
    std::lock_guard<std::mutex> lock(all.mutex);
    all.lent -= capacity;
    all.blocks.push_back({memory, capacity});
    all.bytes += capacity;
    if (!kExact && all.bytes <= kCacheLimit && all.blocks.size() <= kCacheBlocks) return;
  }
  for (;;) {
    Block oldest;
    {
      std::lock_guard<std::mutex> lock(all.mutex);
      if (all.blocks.empty() || (!kExact && all.bytes <= kCacheLimit && all.blocks.size() <= kCacheBlocks)) return;
      oldest = all.remove(0);
    }
    discard(oldest.memory);
  }
}

size_t cached_bytes() {
  std::lock_guard<std::mutex> lock(cache().mutex);
  return cache().bytes;
}

}  // namespace dgr
