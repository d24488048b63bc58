// Who reads and sums which block. Read, not mapped: a thread's one piece at a time is all the memory that it takes.
#include "checksum_work.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>

#include "kernels.h"
#include "threads.h"

namespace toast {
namespace {

// The CRC-32 of the `n` bytes at `at`; an errno, or FILE_ENDED, goes to `error`.
uint32_t crc32_at(int fd, size_t at, size_t n, std::atomic<int>& error) {
  Scratch scratch(tuning::CHECKSUM_BYTES);
  uint32_t crc = 0;
  while (n) {
    ssize_t got = pread(fd, scratch.bytes(), std::min(n, tuning::CHECKSUM_BYTES), at);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) {
      error = got ? errno : FILE_ENDED;
      break;
    }
    crc = kernels().crc32(crc, (const uint8_t*)scratch.bytes(), got);
    at += got, n -= got;
  }
  return crc;
}

}  // namespace

int crc32_blocks(int fd, size_t size, size_t block, uint32_t* sums) {
  std::atomic<int> error{0};
  size_t count = size / block + (size % block > 0);
  if (count)
    parallel((int)count, [&](int i) { sums[i] = crc32_at(fd, i * block, std::min(block, size - i * block), error); });
  return error;
}

}  // namespace toast
