// Where states are, and who else holds them.
#include "states_op.h"

#include <cstring>

#include "mlx/transforms.h"

namespace toast {
namespace {

mx::Strides state_strides(const mx::array& x) {
  int64_t heads = x.shape(1), dv = x.shape(2), dk = x.shape(3);
  return {heads * dk * dv, dk * dv, 1, dv};
}

// x (B, heads, dv, dk) of any strides -> y[B, heads, dk, dv]
void copy_states(const float* x, const mx::Shape& shape, const mx::Strides& strides, float* y) {
  for (int b = 0; b < shape[0]; b++)
    for (int h = 0; h < shape[1]; h++)
      for (int i = 0; i < shape[3]; i++)
        for (int j = 0; j < shape[2]; j++) *y++ = x[b * strides[0] + h * strides[1] + j * strides[2] + i * strides[3]];
}

}  // namespace

mx::array take_states(const mx::array* in, const mx::Shape& shape, const mx::Stream& s) {
  mx::array out(shape, mx::float32, nullptr, {});
  auto strides = state_strides(out);
  if (in && in->data_shared_ptr().use_count() > 1) mx::synchronize(s);
  if (in && in->is_donatable() && in->strides() == strides) {
    out.copy_shared_buffer(*in);
    return out;
  }
  out.set_data(mx::allocator::malloc(out.nbytes()), out.size(), strides, {true, false, false});
  if (in)
    dispatch(s, [x = in->data<float>(), shape, from = in->strides(), y = out.data<float>()] {
      copy_states(x, shape, from, y);
    });
  else
    dispatch(s, [y = out.data<char>(), n = out.nbytes()] { std::memset(y, 0, n); });
  return out;
}

Arrays hand_out(const char* name, const mx::array& out, const std::shared_ptr<Kept>& kept, const Arrays& like,
                mx::Stream s) {
  Arrays arrays;
  for (size_t i = 0; i < like.size(); i++) {
    auto give = [kept, i](const Arrays&, mx::array& to, const mx::Stream&) {
      to.copy_shared_buffer(*(*kept)[i]);
      (*kept)[i].reset();
    };
    arrays.push_back(make(name, like[i].shape(), like[i].dtype(), s, {out}, give));
  }
  return arrays;
}

}  // namespace toast
