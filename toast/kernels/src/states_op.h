// A layer's states as MLX arrays, and ops that keep some beside their output.
// States are MLX-LM's (B, heads, dv, dk), but for their strides: dv lies innermost.
#pragma once
#include "op.h"

namespace toast {

// The states that `in` has, zeros without one: the same memory when nobody else holds it. What the previous step still
// holds is waited for instead of copied.
mx::array take_states(const mx::array* in, const mx::Shape& shape, const mx::Stream& s);

// What a layer keeps for its next call, made by the op of its output.
using Kept = std::vector<OptionalArray>;

// An op's output, and what it keeps. eval(inputs, y, kept, stream). MLX gives an op of several outputs no buffer to
// write in place, so what is kept are arrays that wait for the one.
template <class Eval>
std::pair<mx::array, Arrays> make_keeping(const char* name, const mx::array& y, const Arrays& like, mx::Stream s,
                                          Arrays inputs, Eval eval) {
  auto kept = std::make_shared<Kept>(like.size());
  auto out = make(name, y.shape(), y.dtype(), s, std::move(inputs),
                  [eval = std::move(eval), kept](const Arrays& in, mx::array& y, const mx::Stream& s) {
                    eval(in, y, *kept, s);
                    dispatch(s, [held = *kept] {});  // those arrays may be dropped before the work is done
                  });
  Arrays arrays;
  for (size_t i = 0; i < like.size(); i++) {
    auto hand_out = [kept, i](const Arrays&, mx::array& out, const mx::Stream&) {
      out.copy_shared_buffer(*(*kept)[i]);
      (*kept)[i].reset();
    };
    arrays.push_back(make("Kept", like[i].shape(), like[i].dtype(), s, {out}, hand_out));
  }
  return {out, arrays};
}

// An array that has no data yet.
inline mx::array shaped(mx::Shape shape, mx::Dtype dtype) { return mx::array(std::move(shape), dtype, nullptr, {}); }

}  // namespace toast
