// CRC-32 of each part of an open file, by all threads. Knows the kernel, the pool and files; knows nothing of Python.
#pragma once
#include <cstddef>
#include <cstdint>

namespace toast {

constexpr int FILE_ENDED = -1;  // the file is shorter than it was said to be

// The first `size` bytes of a file in blocks of `block` bytes, the last as long as it is -> sums[size / block, rounded
// up]. Returns 0, an errno, or FILE_ENDED.
int crc32_blocks(int fd, size_t size, size_t block, uint32_t* sums);

}  // namespace toast
