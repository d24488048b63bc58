// The rules of layers with a state as MLX ops: arrays, shapes and streams. What they compute is in recurrence_work.cpp.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/variant.h>
#include <nanobind/stl/vector.h>

#include "bindings.h"
#include "recurrence_work.h"
#include "states_op.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace toast {
namespace {

constexpr Refuse refuse{"[recurrence] "};

// x (B, T, heads, D) or (B, T, heads), all in one piece.
Heads heads_of(const mx::array& x) {
  size_t D = x.ndim() == 4 ? x.shape(3) : 1;
  return {x.data<char>(), type_of(x), x.strides(0), x.strides(1), 0, (size_t)x.shape(2), D};
}

// The states of x (B, T, heads, dv), and what share one of B, T and `others` heads of dk.
struct Sizes {
  int B, T, heads, others, dk, dv;
  Sizes(const mx::array& x, const mx::array& keys)
      : B(x.ndim() == 4 ? x.shape(0) : 0),
        T(B ? x.shape(1) : 0),
        heads(B ? x.shape(2) : 0),
        others(0),
        dk(0),
        dv(B ? x.shape(3) : 0) {
    refuse(!x.size() || keys.ndim() != 4 || !keys.size(), "heads.");
    others = keys.shape(2), dk = keys.shape(3);
    refuse(heads % others, "heads that share.");
  }
  mx::Shape row() const { return {B, T, heads}; }
  mx::Shape keys(int heads) const { return {B, T, heads, dk}; }
  mx::Shape values() const { return {B, T, heads, dv}; }
  mx::Shape state() const { return {B, heads, dv, dk}; }
};

void check(const mx::array& x, const mx::Shape& shape) {
  refuse(x.shape() != shape || !is_float(x.dtype()), "shapes do not fit.");
}

// A rule over its inputs' heads -> y (B, T, heads, dv) of `type`, states. set(evaluated inputs, states, stream) gives
// its work.
template <class Set>
std::tuple<mx::array, mx::array> run_rule(const char* name, const Sizes& z, mx::Dtype type, Arrays inputs,
                                          const OptionalArray& states, Set set) {
  auto s = mx::to_stream({});
  refuse(!ours(s), "on the CPU only.");
  if (states) {
    check(*states, z.state());
    inputs.push_back(mx::astype(*states, mx::float32, s));
  }
  auto eval = [=, continued = states.has_value()](const Arrays& in, mx::array& y, Kept& kept, const mx::Stream& s) {
    Arrays x;
    for (size_t i = 0; i + continued < in.size(); i++) x.push_back(contiguous(in[i], s));
    allocate(y);
    kept[0] = take_states(continued ? &in.back() : nullptr, z.state(), s);
    States states{(size_t)z.B,  (size_t)z.T,  (size_t)z.heads,        (size_t)(z.heads / z.others),
                  (size_t)z.dk, (size_t)z.dv, kept[0]->data<float>(), y.data<char>(),
                  type_of(y)};
    dispatch(s, [work = set(x, states)] { run(work); });
  };
  auto [y, all] =
      make_keeping(name, shaped(z.values(), type), {shaped(z.state(), mx::float32)}, s, std::move(inputs), eval);
  return {y, all[0]};
}

std::tuple<mx::array, mx::array> gated_delta(const mx::array& q, const mx::array& k, const mx::array& v,
                                             const mx::array& g, const mx::array& beta, const OptionalArray& states) {
  Sizes z(v, k);
  check(v, z.values());
  check(q, z.keys(z.others));
  check(k, z.keys(z.others));
  check(g, g.ndim() == 4 ? z.keys(z.heads) : z.row());
  check(beta, z.row());
  return run_rule("GatedDelta", z, q.dtype(), {q, k, v, g, beta}, states, [](const Arrays& x, const States& s) {
    return DeltaRule{s, heads_of(x[0]), heads_of(x[1]), heads_of(x[2]), heads_of(x[3]), heads_of(x[4])};
  });
}

std::tuple<mx::array, mx::array> state_space(const mx::array& x, const mx::array& B, const mx::array& C,
                                             const mx::array& dt, const mx::array& A_log, const mx::array& D,
                                             const mx::array& dt_bias, std::pair<float, float> limits,
                                             const OptionalArray& states) {
  Sizes z(x, B);
  check(x, z.values());
  check(B, z.keys(z.others));
  check(C, z.keys(z.others));
  check(dt, z.row());
  for (auto n : {&A_log, &D, &dt_bias}) check(*n, {z.heads});
  auto set = [limits](const Arrays& x, const States& s) {
    auto numbers = [&](int i) { return Numbers{x[i].data<char>(), type_of(x[i])}; };
    return StateSpace{s,          heads_of(x[0]), heads_of(x[1]), heads_of(x[2]), heads_of(x[3]),
                      numbers(4), numbers(5),     numbers(6),     limits.first,   limits.second};
  };
  return run_rule("StateSpace", z, x.dtype(), {x, B, C, dt, A_log, D, dt_bias}, states, set);
}

std::tuple<mx::array, mx::array> wkv7(const mx::array& r, const mx::array& w, const mx::array& k, const mx::array& v,
                                      const mx::array& a, const mx::array& b, const OptionalArray& states) {
  Sizes z(v, k);
  check(v, z.values());
  for (auto x : {&r, &w, &k, &a, &b}) check(*x, z.keys(z.heads));
  return run_rule("Wkv7", z, r.dtype(), {r, w, k, v, a, b}, states, [](const Arrays& x, const States& s) {
    return Wkv{s, heads_of(x[0]), heads_of(x[1]), heads_of(x[2]), heads_of(x[3]), heads_of(x[4]), heads_of(x[5])};
  });
}

// As MLX's: ours where a channel meets itself alone, over a few steps.
mx::array conv1d(const mx::array& x, const mx::array& w, int stride, int padding, int dilation, int groups,
                 mx::StreamOrDevice where) {
  auto s = mx::to_stream(where);
  bool known = ours(s) && x.ndim() == 3 && w.ndim() == 3 && stride == 1 && padding == 0 && dilation == 1 && x.size() &&
               groups == x.shape(2) && w.shape(0) == groups && w.shape(2) == 1 && w.shape(1) >= 1 &&
               w.shape(1) <= (int)MOST_TAPS && x.shape(1) >= w.shape(1) && is_float(x.dtype()) && is_float(w.dtype()) &&
               mx::result_type(x, w) == x.dtype();
  if (!known) return mx::conv1d(x, w, stride, padding, dilation, groups, where);
  auto eval = [](const Arrays& in, mx::array& out, const mx::Stream& s) {
    auto x = rows_contiguous(in[0], s), w = contiguous(in[1], s);
    allocate(out);
    Convolution c{
        x.data<char>(),       out.data<char>(),     type_of(x),           w.data<char>(),     nullptr,
        type_of(w),           (size_t)x.strides(1), (size_t)out.shape(2), (size_t)w.shape(1), (size_t)out.shape(1),
        (size_t)out.shape(2), Activation::none};
    dispatch(s, [c, B = (size_t)x.shape(0), text = (size_t)x.strides(0)] { convolve_all(c, B, text); });
  };
  return make("ShortConvolution", {x.shape(0), x.shape(1) - w.shape(1) + 1, x.shape(2)}, x.dtype(), s, {x, w}, eval);
}

}  // namespace

void bind_recurrence(nb::module_& m) {
  m.def("conv1d", &conv1d, nb::arg(), nb::arg(), "stride"_a = 1, "padding"_a = 0, "dilation"_a = 1, "groups"_a = 1,
        nb::kw_only(), "stream"_a = nb::none());
  m.def("gated_delta", &gated_delta, nb::kw_only(), "q"_a, "k"_a, "v"_a, "g"_a, "beta"_a, "state"_a.none(),
        "q, k (B, T, heads, dk), v (B, T, v_heads, dv), g (B, T, v_heads[, dk]), beta (B, T, v_heads), state (B, "
        "v_heads, dv, dk) or None\n-> y (B, T, v_heads, dv), state.");
  m.def("state_space", &state_space, nb::kw_only(), "x"_a, "B"_a, "C"_a, "dt"_a, "A_log"_a, "D"_a, "dt_bias"_a,
        "limits"_a, "state"_a.none(),
        "x (B, T, heads, dv), B, C (B, T, groups, dk), dt (B, T, heads), state (B, heads, dv, dk) or None\n"
        "-> y as x, state.");
  m.def("wkv7", &wkv7, nb::kw_only(), "r"_a, "w"_a, "k"_a, "v"_a, "a"_a, "b"_a, "state"_a.none(),
        "Six of (B, T, heads, D), and state (B, heads, D, D) or None\n-> y as r, state.");
}

}  // namespace toast
