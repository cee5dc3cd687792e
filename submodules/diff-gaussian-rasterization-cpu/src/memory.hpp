// Memory that is reused between calls, and refused before the system runs out of it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <new>
#include <string>

namespace dgr {

// A request that this machine cannot hold; `what` is a sentence with the numbers.
class OutOfMemory : public std::bad_alloc {
 public:
  explicit OutOfMemory(std::string sentence) : sentence_(std::move(sentence)) {}
  const char* what() const noexcept override { return sentence_.c_str(); }

 private:
  std::string sentence_;
};

// Uninitialized memory that returns to a cache when released: fresh pages would cost as much as the work on them.
struct Release {
  size_t capacity = 0;
  void operator()(char* memory) const noexcept;
};
using Memory = std::unique_ptr<char, Release>;

// `what` names the contents in the error, in the plural.  Throws OutOfMemory if the system does not have that much.
Memory take(size_t bytes, const char* what);
size_t cached_bytes();

// Throws OutOfMemory if the system does not have that much now, with an eighth to spare.
void expect_available(size_t bytes, const char* what);

// Product of sizes; throws OutOfMemory instead of wrapping.
size_t product(std::initializer_list<size_t> factors, const char* what);

template <class T>
Memory take_array(std::initializer_list<size_t> shape, const char* what, size_t slack = 0) {
  const size_t bytes = product({product(shape, what), sizeof(T)}, what);
  const size_t more = slack * sizeof(T);
  return take(bytes + more < bytes ? SIZE_MAX : bytes + more, what);
}

template <class T = float>
T* as(const Memory& memory) {
  return reinterpret_cast<T*>(memory.get());
}

}  // namespace dgr
