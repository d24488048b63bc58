// Intermediate results in one piece of memory, none of which shares a line of the cache with the next.
#pragma once
#include <cstddef>

namespace toast {

// Gives one place after the other from `base` on, which may be null: then only `bytes` counts.
struct Pieces {
  char* base;
  size_t bytes = 0;

  char* operator()(size_t n) {
    char* at = base + bytes;
    bytes += (n + 63) / 64 * 64;
    return at;
  }
};

}  // namespace toast
