// Tensors of a file as MLX arrays without a copy: they share the page cache between processes and
// nothing is read until touched. Offsets are checked again here; the format is store/weights.py's.
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <sys/mman.h>
#include <sys/stat.h>

#include <cstring>

#include "bindings.h"
#include "op.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace toast {
namespace {

// A private, writable mapping of a whole file; it ends with the last array that points into it.
struct Mapping {
  char* data;
  size_t size;

  explicit Mapping(int fd) {
    struct stat st;
    if (fstat(fd, &st)) throw std::runtime_error(std::strerror(errno));
    size = st.st_size;
    void* p = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    if (p == MAP_FAILED) throw std::runtime_error(std::strerror(errno));
    data = static_cast<char*>(p);
  }
  ~Mapping() { munmap(data, size); }
  Mapping(const Mapping&) = delete;
};

using Tensor = std::tuple<size_t, mx::Dtype, std::vector<int>>;  // offset in the file, type, shape

// MLX's allocator without a GPU keeps a buffer's size in the 8 bytes before its data. It only reads
// them to choose between sharing and copying a buffer, and both are right, so whatever precedes a
// tensor in the file may stand there: nothing is written, no page is copied. A buffer with a deleter
// is never donated, so no op writes into the mapping either. Writers that pad no header (MLX's own) leave
// tensors at odd addresses: they are read there, which every CPU that this is built for does.
mx::array mapped(const std::shared_ptr<Mapping>& file, const Tensor& tensor) {
  auto& [offset, dtype, dims] = tensor;
  mx::Shape shape(dims.begin(), dims.end());
  size_t bytes = mx::size_of(dtype);
  for (int n : dims)
    if (n < 0 || __builtin_mul_overflow(bytes, (size_t)n, &bytes)) throw std::out_of_range("tensor shape");
  if (offset < sizeof(size_t) || offset > file->size || bytes > file->size - offset)
    throw std::out_of_range("tensor outside the file");
  mx::allocator::Buffer buffer(file->data + offset - sizeof(size_t));
  return mx::array(mx::allocator::Data(buffer, [file](mx::allocator::Buffer) {}), shape, dtype);
}

std::vector<mx::array> map_tensors(int fd, const std::vector<Tensor>& tensors) {
  auto file = std::make_shared<Mapping>(fd);
  std::vector<mx::array> arrays;
  arrays.reserve(tensors.size());
  for (auto& t : tensors) arrays.push_back(mapped(file, t));
  return arrays;
}

}  // namespace

void bind_weights(nb::module_& m) {
  m.def("map_tensors", &map_tensors, "fd"_a, "tensors"_a,
        "[(offset, dtype, shape)] of an open file -> arrays on a private mapping of it.");
}

}  // namespace toast
