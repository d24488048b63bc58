// Copies of strided arrays for kernels that want contiguous rows.
#include "op.h"

#include <cstring>

namespace toast {
namespace {

// Copies x (any strides, `size` bytes an element) to y (contiguous), innermost runs with memcpy.
void copy_strided(const char* x, char* y, const mx::Shape& shape, const mx::Strides& strides, size_t size,
                  size_t dim = 0) {
  if (dim == shape.size()) {
    std::memcpy(y, x, size);
    return;
  }
  size_t inner = size;
  for (size_t d = dim + 1; d < shape.size(); d++) inner *= shape[d];
  bool last = dim + 1 == shape.size();
  if (last && strides[dim] == 1) {
    std::memcpy(y, x, size * shape[dim]);
    return;
  }
  for (int i = 0; i < shape[dim]; i++)
    copy_strided(x + i * strides[dim] * (int64_t)size, y + i * inner, shape, strides, size, dim + 1);
}

}  // namespace

mx::array contiguous(const mx::array& a, const mx::Stream& s) {
  if (a.flags().row_contiguous) return a;
  mx::array copy(a.shape(), a.dtype(), nullptr, {});
  allocate(copy);
  if (copy.size()) {
    dispatch(s, [x = a.data<char>(), y = copy.data<char>(), shape = a.shape(), strides = a.strides(),
                 size = a.itemsize()] { copy_strided(x, y, shape, strides, size); });
  }
  mx::cpu::get_command_encoder(s).add_temporary(copy);
  return copy;
}

}  // namespace toast
