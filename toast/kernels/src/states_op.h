// A layer's states as MLX arrays, and ops that keep some beside their output.
// States are MLX-LM's (B, heads, dv, dk), but for their strides: dv lies innermost.
#pragma once
#include "op.h"

namespace toast {

// The states that `in` has, zeros without one: the same memory when nobody else holds it. What the previous step still
// holds is waited for instead of copied.
mx::array take_states(const mx::array* in, const mx::Shape& shape, const mx::Stream& s);

// What a layer keeps for its next call, made by the op of its output. The work holds it itself: the arrays that hand it
// out may be dropped before it runs.
using Kept = std::vector<OptionalArray>;

// What the op of `out` keeps, as arrays `like` these that wait for it: MLX gives an op of several outputs no buffer to
// write in place.
Arrays hand_out(const char* name, const mx::array& out, const std::shared_ptr<Kept>& kept, const Arrays& like,
                mx::Stream s);

// An op's output, and what it keeps. eval(inputs, y, kept, stream).
template <class Eval>
std::pair<mx::array, Arrays> make_keeping(const char* name, const mx::array& y, const Arrays& like, mx::Stream s,
                                          Arrays inputs, Eval eval) {
  auto kept = std::make_shared<Kept>(like.size());
  auto out = make(name, y.shape(), y.dtype(), s, std::move(inputs),
                  [eval = std::move(eval), kept](const Arrays& in, mx::array& y, const mx::Stream& s) {
                    eval(in, y, *kept, s);
                    dispatch(s, [held = *kept] {});  // those arrays may be dropped before the work is done
                  });
  return {out, hand_out("Kept", out, kept, like, s)};
}

// An array that has no data yet.
inline mx::array shaped(mx::Shape shape, mx::Dtype dtype) { return mx::array(std::move(shape), dtype, nullptr, {}); }

}  // namespace toast
