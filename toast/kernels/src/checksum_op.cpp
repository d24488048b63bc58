// CRC-32 of each block of an open file, for Python: a descriptor in, bytes out.
#include <cerrno>

#include "bindings.h"
#include "checksum_work.h"
#include "kernels.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace toast {
namespace {

nb::bytes sums_of(int fd, size_t size, size_t block) {
  if (!block) throw nb::value_error("crc32_blocks: a block has a byte or more");
  size_t count = size / block + (size % block > 0);
  nb::bytes sums = nb::steal<nb::bytes>(PyBytes_FromStringAndSize(nullptr, count * sizeof(uint32_t)));
  if (!sums.is_valid()) nb::raise_python_error();
  int error;
  {
    auto to = (uint32_t*)PyBytes_AsString(sums.ptr());
    nb::gil_scoped_release release;
    error = crc32_blocks(fd, size, block, to);
  }
  if (error == FILE_ENDED) throw nb::value_error("the file ends too early");
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
  m.def("crc32_blocks", &sums_of, "fd"_a, "size"_a, "block"_a,
        "The CRC-32 of each block of a file's first `size` bytes, the last one as long as it is -> uint32, as bytes.");
  m.def("crc32", &crc32, "data"_a, "start"_a = 0, "The kernel alone, on the bytes from `start` on.");
}

}  // namespace toast
