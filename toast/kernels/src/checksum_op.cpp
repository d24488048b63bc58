// CRC-32 of each block of an open file, for Python: a descriptor in, bytes out, all threads.
// Read, not mapped: a thread's one piece at a time is all the memory that it takes.
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>

#include "bindings.h"
#include "kernels.h"
#include "threads.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace toast {
namespace {

constexpr size_t piece = 64 << 10;  // bytes read at once: still in the cache when they are summed up
constexpr int ended = -1;           // for an error: the file is shorter than it was

// The CRC-32 of the `n` bytes at `at`; an errno, or `ended`, goes to `error`.
uint32_t crc32_at(int fd, size_t at, size_t n, std::atomic<int>& error) {
  auto x = (uint8_t*)scratch(0, piece);
  uint32_t crc = 0;
  while (n) {
    ssize_t got = pread(fd, x, std::min(n, piece), at);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) {
      error = got ? errno : ended;
      break;
    }
    crc = kernels().crc32(crc, x, got);
    at += got, n -= got;
  }
  return crc;
}

nb::bytes crc32_blocks(int fd, size_t size, size_t block) {
  if (!block) throw nb::value_error("crc32_blocks: a block has a byte or more");
  size_t count = size / block + (size % block > 0);
  nb::bytes sums = nb::steal<nb::bytes>(PyBytes_FromStringAndSize(nullptr, count * sizeof(uint32_t)));
  if (!sums.is_valid()) nb::raise_python_error();
  auto y = (uint32_t*)PyBytes_AsString(sums.ptr());
  std::atomic<int> error{0};
  {
    nb::gil_scoped_release release;
    if (count)
      parallel((int)count, [&](int i) { y[i] = crc32_at(fd, i * block, std::min(block, size - i * block), error); });
  }
  if (error == ended) throw nb::value_error("the file ends too early");
  if ((errno = error)) {
    PyErr_SetFromErrno(PyExc_OSError);
    nb::raise_python_error();
  }
  return sums;
}

uint32_t crc32(nb::bytes data, size_t start) {
  if (start > data.size()) throw nb::value_error("crc32: starts after the end");
  return kernels().crc32(0, (const uint8_t*)data.data() + start, data.size() - start);
}

}  // namespace

void bind_checksum(nb::module_& m) {
  m.def("crc32_blocks", &crc32_blocks, "fd"_a, "size"_a, "block"_a,
        "The CRC-32 of each block of a file's first `size` bytes, the last one as long as it is -> uint32, as bytes.");
  m.def("crc32", &crc32, "data"_a, "start"_a = 0, "The kernel alone, on the bytes from `start` on.");
}

}  // namespace toast
