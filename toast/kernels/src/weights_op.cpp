// Tensors of a file as MLX arrays without a copy: they share the page cache between processes and
// nothing is read until touched. Offsets are checked again here; the format is store/weights.py's.
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cstring>
#include <thread>

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

constexpr size_t ALL_READ = size_t(1) << 30;  // of a larger file not all may be used: experts, say
constexpr size_t AT_ONCE = size_t(2) << 20;   // whoever maps something else meanwhile waits for no more than that

// Puts a file's pages into the page tables on another core while the model is being made; else each 64 KiB of them
// interrupt the first product.
void read_ahead(const std::shared_ptr<Mapping>& file) {
#ifdef MADV_POPULATE_READ
  if (file->size > ALL_READ) return;
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);  // signals are for Python's thread
  try {
    std::thread([file] {
      for (size_t at = 0; at < file->size; at += AT_ONCE)
        if (madvise(file->data + at, std::min(AT_ONCE, file->size - at), MADV_POPULATE_READ)) return;
    }).detach();
  } catch (const std::system_error&) {  // no thread: the pages come as they are used
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
#endif
}

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
  read_ahead(file);
  return arrays;
}

}  // namespace

void bind_weights(nb::module_& m) {
  m.def("map_tensors", &map_tensors, "fd"_a, "tensors"_a,
        "[(offset, dtype, shape)] of an open file -> arrays on a private mapping of it.");
}

}  // namespace toast
